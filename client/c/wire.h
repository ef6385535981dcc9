/* msgpack, as much of it as events and the daemon's answers need. */
#ifndef SCALESIM_WIRE_H
#define SCALESIM_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MAX_ID_BYTES 256
#define MAX_EVENTS 1000
#define MAX_ITEMS (1024 * 1024) /* of an array */
#define MAX_MESSAGE_BYTES (4 * 1024 * 1024)
#define MAX_EVENT_BYTES (MAX_MESSAGE_BYTES - 4096)
#define PART_BYTES (1024 * 1024)

/* Bytes that grow. All zeros is an empty one. */
typedef struct {
    uint8_t *at;
    size_t length, room;
} bytes;

void *ss_take_memory(void *old, size_t size); /* realloc that never returns NULL */
char *ss_copy_text(const char *text);         /* NULL stays NULL */

void ss_put_raw(bytes *to, const void *from, size_t length);
void ss_put_map(bytes *to, uint32_t pairs);
void ss_put_array(bytes *to, uint32_t items);
void ss_put_text(bytes *to, const char *text);
void ss_put_integer(bytes *to, int64_t value);
void ss_put_double(bytes *to, double value);
void ss_put_number(bytes *to, double value); /* a whole number as an integer */
void ss_free_bytes(bytes *of);

/* Packed values one after another, and where each ends. */
typedef struct {
    bytes all;
    size_t *ends;
    size_t count, room;
} packed_list;

void ss_push_packed(packed_list *to, const void *from, size_t length);
void ss_clear_packed(packed_list *of); /* frees what it holds */

/* Return how many values, from number `first` on, make one message: at most 1,000 and, one big value apart, 1 MiB. */
size_t ss_chunk_length(const packed_list *of, size_t first);

/* The payload of `count` events from number `first` on, said at `ts`, wall seconds since the epoch. */
bytes ss_join_events(double ts, const packed_list *from, size_t first, size_t count);

/* The same as part `part` of a snapshot in `of` parts; `now` is the clock's value, or NAN. */
bytes ss_join_snapshot(double ts, uint32_t part, uint32_t of, const packed_list *from, size_t first, size_t count,
                       double now);

typedef enum { NIL, BOOLEAN, INTEGER, FLOAT, TEXT, ARRAY, MAP } value_kind;

typedef struct {
    value_kind kind;
    int64_t integer; /* also a boolean */
    double number;
    const char *text; /* not ended by a zero */
    size_t length;    /* bytes of a text, items of an array, pairs of a map */
} value;

typedef struct {
    const uint8_t *at, *end;
} reader;

bool ss_read_value(reader *from, value *into); /* a scalar, or the head of an array or map; false where malformed */
bool ss_skip_value(reader *from);

/* What a daemon says to a source. */
typedef struct {
    enum { OTHER, WELCOME, RESYNC } kind;
    int64_t last_seq;
    bool resync;
    bool refused;
    char error[256];
} control;

/* Read the next control message of a payload that `ss_open_controls` has begun; false where there is none. */
uint32_t ss_open_controls(reader *from); /* how many there are */
bool ss_read_control(reader *from, control *into);

#endif
