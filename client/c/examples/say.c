/* Says what it reads, one event a line, for tests and for what speaks no ZeroMQ itself:
 *   agent.activity_started agent=Ada for=2.5        (lists: agents=Ada,Bob xy=1,2)
 *   flush SECONDS | count | flood EVENTS            (answered by one line each)
 * build/say say ADDRESS SIMULATION [SECONDS BETWEEN SNAPSHOTS [OWN.key_secret DAEMON.key]]; `encode` prints each event in
 * msgpack, as hex, instead of saying it; `decode` reads such lines and prints JSON. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "state.h"

#define MOST 64 /* items of a list in a line */

/* The value of a field, or NULL where a line's words have none of this name. */
static const char *field(char **words, const char *key) {
    size_t length = strlen(key);
    for (; *words; words++)
        if (!strncmp(*words, key, length) && (*words)[length] == '=') return *words + length + 1;
    return NULL;
}

static double number(char **words, const char *key) {
    const char *text = field(words, key);
    return text ? strtod(text, NULL) : NAN;
}

static size_t numbers(char **words, const char *key, double *into) {
    size_t count = 0;
    char *at = (char *)field(words, key);
    while (at && *at && count < MOST) {
        into[count++] = strtod(at, &at);
        if (*at == ',') at++;
    }
    return count;
}

static event read_event(int kind, char **words) {
    static const char *agents[MOST];
    static double probabilities[MOST];
    static uint32_t tokens[MOST];
    event what = {.kind = kind, .agent = field(words, "agent"), .now = number(words, "now")};
    what.units = number(words, "for");
    what.until = number(words, "until");
    what.activity = field(words, "activity");
    what.request = field(words, "request");

    double point[MOST];
    what.move = SCALESIM_NOWHERE;
    if (numbers(words, "xy", point)) what.move.x = point[0], what.move.y = point[1];
    if (numbers(words, "destination", point)) what.move.to_x = point[0], what.move.to_y = point[1];
    what.move.place = field(words, "place");
    what.move.speed = number(words, "speed");
    what.move.vision = number(words, "vision");

    what.memory = (scalesim_memory){.lora = field(words, "lora"), .lora_name = field(words, "lora_name")};
    what.memory.text = field(words, "text");
    what.memory.cache_salt = field(words, "cache_salt");
    what.memory.model = field(words, "model");
    what.memory.token_count = numbers(words, "token_ids", point);
    for (size_t i = 0; i < what.memory.token_count; i++) tokens[i] = (uint32_t)point[i];
    if (what.memory.token_count) what.memory.token_ids = tokens;

    what.plan = SCALESIM_NO_PLAN;
    what.plan.at = number(words, "at");
    what.plan.not_before = number(words, "not_before");
    if (numbers(words, "probabilities", probabilities)) what.plan.probabilities = probabilities;
    what.plan.agents = agents;
    for (char *at = (char *)field(words, "agents"); at && *at && what.plan.count < MOST;) {
        agents[what.plan.count++] = at;
        at += strcspn(at, ",");
        if (*at) *at++ = 0;
    }
    return what;
}

static void say(scalesim *to, const event *what) {
    switch (what->kind) {
    case STEP_ADVANCED: scalesim_step(to, what->now); break;
    case AGENT_REGISTERED: scalesim_register(to, what->agent); break;
    case AGENT_RELEASED: scalesim_release(to, what->agent); break;
    case ACTIVITY_STARTED:
        if (isnan(what->until))
            scalesim_activity_for(to, what->agent, what->units, what->activity);
        else
            scalesim_activity_until(to, what->agent, what->until, what->activity);
        break;
    case AGENT_MOVED: scalesim_moved(to, what->agent, &what->move); break;
    case AGENT_WOKEN: scalesim_woken(to, what->agent); break;
    case AGENT_IDLED: scalesim_idled(to, what->agent); break;
    case PLAN_DECLARED: scalesim_planned(to, &what->plan); break;
    case INVOCATION_STARTED: scalesim_started(to, what->agent, what->request); break;
    case INVOCATION_FINISHED: scalesim_finished(to, what->agent, what->request); break;
    case MEMORY_BOUND: scalesim_bind(to, what->agent, &what->memory); break;
    case MEMORY_UNBOUND: scalesim_unbind(to, what->agent); break;
    }
}

static void flood(scalesim *to, long events) {
    struct timespec began, ended;
    clock_gettime(CLOCK_MONOTONIC, &began);
    for (long i = 0; i < events; i++) {
        char agent[24];
        snprintf(agent, sizeof agent, "%ld", i % 1000);
        scalesim_activity_until(to, agent, (double)i, NULL);
    }
    clock_gettime(CLOCK_MONOTONIC, &ended);
    printf("%f\n", (double)(ended.tv_sec - began.tv_sec) + (double)(ended.tv_nsec - began.tv_nsec) / 1e9);
}

static void carry_out(scalesim *to, const char *verb, const char *amount) {
    scalesim_counts counts = scalesim_count(to);
    if (!strcmp(verb, "flush"))
        printf("flushed %d\n", scalesim_flush(to, strtod(amount, NULL)));
    else if (!strcmp(verb, "flood"))
        flood(to, strtol(amount, NULL, 10));
    else
        printf("%" PRIu64 " %" PRIu64 " %" PRIu64 "\n", counts.sent, counts.dropped, counts.invalid);
    fflush(stdout);
}

static void print_text(const value *text) {
    putchar('"');
    for (size_t i = 0; i < text->length; i++) {
        unsigned char each = (unsigned char)text->text[i];
        if (each < 0x20)
            printf("\\u%04x", each);
        else
            printf(each == '"' || each == '\\' ? "\\%c" : "%c", each);
    }
    putchar('"');
}

static bool print_json(reader *from) {
    value found;
    if (!ss_read_value(from, &found)) return false;
    switch (found.kind) {
    case NIL: fputs("null", stdout); return true;
    case BOOLEAN: fputs(found.integer ? "true" : "false", stdout); return true;
    case INTEGER: printf(found.number < 0 ? "%" PRId64 : "%" PRIu64, found.integer); return true;
    case FLOAT: printf("%.17g", found.number); return true;
    case TEXT: print_text(&found); return true;
    default: break;
    }
    putchar(found.kind == MAP ? '{' : '[');
    for (size_t i = 0; i < found.length; i++) {
        if (i) putchar(',');
        if (found.kind == MAP && (!print_json(from) || putchar(':') == EOF)) return false;
        if (!print_json(from)) return false;
    }
    putchar(found.kind == MAP ? '}' : ']');
    return true;
}

static void decode(char *line) {
    bytes packed = {0};
    for (unsigned each; sscanf(line, "%2x", &each) == 1; line += 2) ss_put_raw(&packed, &(uint8_t){(uint8_t)each}, 1);
    reader from = {packed.at, packed.at + packed.length};
    if (!print_json(&from) || from.at != from.end) fputs(" malformed", stdout);
    putchar('\n');
    ss_free_bytes(&packed);
}

static void encode(const event *what) {
    bytes packed = {0};
    if (ss_is_valid_event(what)) ss_pack_event(&packed, what, NAN);
    for (size_t i = 0; i < packed.length; i++) printf("%02x", packed.at[i]);
    putchar('\n');
    ss_free_bytes(&packed);
}

static size_t split(char *line, char **words) {
    size_t count = 0;
    for (char *word = strtok(line, " \n"); word && count < 15; word = strtok(NULL, " \n")) words[count++] = word;
    words[count] = NULL;
    return count;
}

int main(int count, char **arguments) {
    scalesim *publisher = NULL;
    if (count > 3) {
        scalesim_options options = {.address = arguments[2]};
        if (count > 4) options.snapshot_every = strtod(arguments[4], NULL);
        scalesim_curve keys;
        if (count > 6) {
            if (!scalesim_load_curve(&keys, arguments[5], arguments[6])) {
                perror("scalesim_load_curve");
                return 1;
            }
            options.curve = &keys;
        }
        publisher = scalesim_open(arguments[3], &options);
        if (!publisher) {
            perror("scalesim_open");
            return 1;
        }
    }
    char *line = NULL, *words[16];
    size_t room = 0;
    while (getline(&line, &room, stdin) > 0) {
        if (!strcmp(arguments[1], "decode")) {
            decode(line);
            continue;
        }
        if (!split(line, words)) continue;
        int kind = 0;
        while (kind < KINDS && strcmp(ss_event_types[kind], words[0])) kind++;
        if (kind == KINDS) {
            carry_out(publisher, words[0], words[1] ? words[1] : "");
            continue;
        }
        event what = read_event(kind, words + 1);
        if (publisher)
            say(publisher, &what);
        else
            encode(&what);
    }
    free(line);
    scalesim_close(publisher);
    return 0;
}
