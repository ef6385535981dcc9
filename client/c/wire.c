#include "wire.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *ss_take_memory(void *old, size_t size) {
    void *taken = realloc(old, size ? size : 1);
    if (!taken) {
        fputs("scalesim: out of memory\n", stderr);
        abort();
    }
    return taken;
}

char *ss_copy_text(const char *text) {
    return text ? strcpy(ss_take_memory(NULL, strlen(text) + 1), text) : NULL;
}

void ss_put_raw(bytes *to, const void *from, size_t length) {
    if (to->length + length > to->room) {
        to->room = 2 * (to->length + length);
        to->at = ss_take_memory(to->at, to->room);
    }
    if (length) memcpy(to->at + to->length, from, length);
    to->length += length;
}

static void put_big_endian(bytes *to, uint8_t tag, uint64_t value, int size) {
    uint8_t raw[9] = {tag};
    for (int i = 0; i < size; i++) raw[1 + i] = (uint8_t)(value >> (8 * (size - 1 - i)));
    ss_put_raw(to, raw, 1 + (size_t)size);
}

/* Short lengths stand in the tag itself, longer ones in 1 (where `tag8` isn't 0), 2 or 4 bytes behind it. */
static void put_head(bytes *to, uint8_t fix, uint32_t below, uint8_t tag8, uint8_t tag16, uint32_t length) {
    if (length < below)
        put_big_endian(to, (uint8_t)(fix | length), 0, 0);
    else if (tag8 && length <= UINT8_MAX)
        put_big_endian(to, tag8, length, 1);
    else if (length <= UINT16_MAX)
        put_big_endian(to, tag16, length, 2);
    else
        put_big_endian(to, (uint8_t)(tag16 + 1), length, 4);
}

void ss_put_map(bytes *to, uint32_t pairs) {
    put_head(to, 0x80, 16, 0, 0xde, pairs);
}

void ss_put_array(bytes *to, uint32_t items) {
    put_head(to, 0x90, 16, 0, 0xdc, items);
}

void ss_put_text(bytes *to, const char *text) {
    size_t length = strlen(text);
    put_head(to, 0xa0, 32, 0xd9, 0xda, (uint32_t)length);
    ss_put_raw(to, text, length);
}

void ss_put_integer(bytes *to, int64_t value) {
    if (value >= 0) {
        if (value < 0x80)
            put_big_endian(to, (uint8_t)value, 0, 0);
        else if (value <= UINT8_MAX)
            put_big_endian(to, 0xcc, (uint64_t)value, 1);
        else if (value <= UINT16_MAX)
            put_big_endian(to, 0xcd, (uint64_t)value, 2);
        else if (value <= UINT32_MAX)
            put_big_endian(to, 0xce, (uint64_t)value, 4);
        else
            put_big_endian(to, 0xcf, (uint64_t)value, 8);
    } else if (value >= -32)
        put_big_endian(to, (uint8_t)value, 0, 0);
    else if (value >= INT8_MIN)
        put_big_endian(to, 0xd0, (uint64_t)value, 1);
    else if (value >= INT16_MIN)
        put_big_endian(to, 0xd1, (uint64_t)value, 2);
    else if (value >= INT32_MIN)
        put_big_endian(to, 0xd2, (uint64_t)value, 4);
    else
        put_big_endian(to, 0xd3, (uint64_t)value, 8);
}

void ss_put_double(bytes *to, double value) {
    uint64_t raw;
    memcpy(&raw, &value, sizeof raw);
    put_big_endian(to, 0xcb, raw, 8);
}

void ss_put_number(bytes *to, double value) {
    if (value == floor(value) && fabs(value) < 9007199254740992.0)
        ss_put_integer(to, (int64_t)value);
    else
        ss_put_double(to, value);
}

void ss_free_bytes(bytes *of) {
    free(of->at);
    *of = (bytes){0};
}

void ss_push_packed(packed_list *to, const void *from, size_t length) {
    if (to->count == to->room) {
        to->room = to->room ? 2 * to->room : 16;
        to->ends = ss_take_memory(to->ends, to->room * sizeof *to->ends);
    }
    ss_put_raw(&to->all, from, length);
    to->ends[to->count++] = to->all.length;
}

void ss_clear_packed(packed_list *of) {
    ss_free_bytes(&of->all);
    free(of->ends);
    *of = (packed_list){0};
}

static size_t start_of(const packed_list *of, size_t number) {
    return number ? of->ends[number - 1] : 0;
}

size_t ss_chunk_length(const packed_list *of, size_t first) {
    size_t next = first;
    while (next < of->count && next - first < MAX_EVENTS &&
           (next == first || of->ends[next] - start_of(of, first) <= PART_BYTES))
        next++;
    return next - first;
}

static void put_list(bytes *to, const packed_list *from, size_t first, size_t count) {
    ss_put_array(to, (uint32_t)count);
    size_t start = start_of(from, first);
    if (count) ss_put_raw(to, from->all.at + start, start_of(from, first + count) - start);
}

static bytes begin_payload(double ts) {
    bytes payload = {0};
    ss_put_array(&payload, 2);
    ss_put_double(&payload, ts);
    return payload;
}

bytes ss_join_events(double ts, const packed_list *from, size_t first, size_t count) {
    bytes payload = begin_payload(ts);
    put_list(&payload, from, first, count);
    return payload;
}

bytes ss_join_snapshot(double ts, uint32_t part, uint32_t of, const packed_list *from, size_t first, size_t count,
                       double now) {
    bytes payload = begin_payload(ts);
    ss_put_array(&payload, 1);
    ss_put_map(&payload, isnan(now) ? 4 : 5);
    ss_put_text(&payload, "type"), ss_put_text(&payload, "state.snapshot");
    ss_put_text(&payload, "part"), ss_put_integer(&payload, part);
    ss_put_text(&payload, "of"), ss_put_integer(&payload, of);
    if (!isnan(now)) ss_put_text(&payload, "now"), ss_put_number(&payload, now);
    ss_put_text(&payload, "events"), put_list(&payload, from, first, count);
    return payload;
}

static bool read_big_endian(reader *from, int size, uint64_t *into) {
    if (from->end - from->at < size) return false;
    for (*into = 0; size; size--) *into = *into << 8 | *from->at++;
    return true;
}

static bool read_length(reader *from, value *into, value_kind kind, int size) {
    uint64_t length;
    if (!read_big_endian(from, size, &length)) return false;
    *into = (value){.kind = kind, .length = (size_t)length};
    return true;
}

static bool read_text(reader *from, value *into) {
    if ((size_t)(from->end - from->at) < into->length) return false;
    into->text = (const char *)from->at;
    from->at += into->length;
    return true;
}

static bool read_integer(reader *from, value *into, int size, bool is_signed) {
    uint64_t raw;
    if (!read_big_endian(from, size, &raw)) return false;
    int unused = 64 - 8 * size;
    *into = (value){.kind = INTEGER, .integer = is_signed ? (int64_t)(raw << unused) >> unused : (int64_t)raw};
    into->number = is_signed ? (double)into->integer : (double)raw;
    return true;
}

static bool read_float(reader *from, value *into, int size) {
    uint64_t raw;
    if (!read_big_endian(from, size, &raw)) return false;
    *into = (value){.kind = FLOAT};
    if (size == 8) {
        memcpy(&into->number, &raw, sizeof raw);
    } else {
        uint32_t half = (uint32_t)raw;
        float single;
        memcpy(&single, &half, sizeof half);
        into->number = single;
    }
    return true;
}

bool ss_read_value(reader *from, value *into) {
    if (from->at == from->end) return false;
    uint8_t tag = *from->at++;
    if (tag < 0x80 || tag >= 0xe0) {
        *into = (value){.kind = INTEGER, .integer = (int8_t)tag, .number = (int8_t)tag};
        return true;
    }
    if (tag < 0xa0) {
        *into = (value){.kind = tag < 0x90 ? MAP : ARRAY, .length = tag & 0x0f};
        return true;
    }
    if (tag < 0xc0) {
        *into = (value){.kind = TEXT, .length = tag & 0x1f};
        return read_text(from, into);
    }
    switch (tag) {
    case 0xc0: *into = (value){.kind = NIL}; return true;
    case 0xc2: case 0xc3: *into = (value){.kind = BOOLEAN, .integer = tag & 1}; return true;
    case 0xca: case 0xcb: return read_float(from, into, 4 << (tag - 0xca));
    case 0xcc: case 0xcd: case 0xce: case 0xcf: return read_integer(from, into, 1 << (tag - 0xcc), false);
    case 0xd0: case 0xd1: case 0xd2: case 0xd3: return read_integer(from, into, 1 << (tag - 0xd0), true);
    case 0xd9: case 0xda: case 0xdb: return read_length(from, into, TEXT, 1 << (tag - 0xd9)) && read_text(from, into);
    case 0xdc: case 0xdd: return read_length(from, into, ARRAY, 2 << (tag - 0xdc));
    case 0xde: case 0xdf: return read_length(from, into, MAP, 2 << (tag - 0xde));
    default: return false;
    }
}

bool ss_skip_value(reader *from) {
    value found;
    for (uint64_t left = 1; left; left--) {
        if (!ss_read_value(from, &found)) return false;
        if (found.kind == ARRAY) left += found.length;
        if (found.kind == MAP) left += 2 * (uint64_t)found.length;
    }
    return true;
}

uint32_t ss_open_controls(reader *from) {
    value found;
    if (!ss_read_value(from, &found) || found.kind != ARRAY || found.length != 2 || !ss_skip_value(from)) return 0;
    return ss_read_value(from, &found) && found.kind == ARRAY ? (uint32_t)found.length : 0;
}

static bool is_text(const value *found, const char *text) {
    return found->kind == TEXT && found->length == strlen(text) && !memcmp(found->text, text, found->length);
}

bool ss_read_control(reader *from, control *into) {
    *into = (control){.kind = OTHER, .last_seq = -1};
    value map, key, found;
    reader start = *from;
    if (!ss_read_value(from, &map)) return false;
    if (map.kind != MAP) {
        *from = start;
        return ss_skip_value(from);
    }
    for (size_t pair = 0; pair < map.length; pair++) {
        if (!ss_read_value(from, &key)) return false;
        start = *from;
        if (!ss_skip_value(from) || !ss_read_value(&start, &found)) return false;
        if (is_text(&key, "type"))
            into->kind = is_text(&found, "welcome") ? WELCOME : is_text(&found, "resync") ? RESYNC : OTHER;
        else if (is_text(&key, "last_seq") && found.kind == INTEGER)
            into->last_seq = found.integer;
        else if (is_text(&key, "resync"))
            into->resync = found.kind == BOOLEAN && found.integer;
        else if (is_text(&key, "error") && found.kind == TEXT) {
            into->refused = true;
            snprintf(into->error, sizeof into->error, "%.*s", (int)found.length, found.text);
        }
    }
    return true;
}
