/* What a simulation holds: says events to the ScaleSim sidecar, and never waits for it, nor fails because of it.
 *
 * A thread of the publisher sends. While no daemon listens, the newest state is kept in memory, and said when one does.
 * Every function may be called from any thread, returns at once (but for flush and close), and copies what it is given.
 * An event that is not valid is ignored and counted; the functions that say something return whether they took it.
 * Times and durations are in units of the stream's clock, names are UTF-8 of 1 to 256 bytes. Numbers that are NAN and
 * texts that are NULL are left out. Where memory ends, the process does. A forked child has no publisher.
 */
#ifndef SCALESIM_H
#define SCALESIM_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#define SCALESIM_VALUE(type, ...) (type{__VA_ARGS__})
#else
#define SCALESIM_VALUE(type, ...) ((type){__VA_ARGS__})
#endif

typedef struct scalesim scalesim;

/* Keys for a daemon that asks for some (ZeroMQ's CURVE): the daemon's public key and a publisher's own pair, as Z85. */
typedef struct {
    char server_key[41];
    char public_key[41];
    char secret_key[41];
} scalesim_curve;

/* Read a publisher's NAME.key_secret and the daemon's NAME.key, as `python -m scalesim_client.curve` makes them. Returns
 * false with errno: EINVAL for a file that lacks a key. */
bool scalesim_load_curve(scalesim_curve *keys, const char *own, const char *server);

/* What a publisher may be told; zeros and NULLs stand for the defaults in brackets. */
typedef struct {
    const char *clock;     /* what times count: "step" [this], "sim_seconds" or "wall_seconds" */
    const char *address;   /* the daemon's ZeroMQ door ["tcp://127.0.0.1:5600"] */
    const char *source;    /* this process among those of the simulation [the simulation's name] */
    uint64_t incarnation;  /* greater each time that the source starts [wall time in milliseconds] */
    double snapshot_every; /* seconds after which the whole state is said again [30] */
    const scalesim_curve *curve; /* the keys for a daemon that asks for some [none] */
} scalesim_options;

/* Where an agent is and where it goes, in space units and, for speed, space units per clock unit. Begin with
 * SCALESIM_NOWHERE. */
typedef struct {
    double x, y;
    const char *place;
    double to_x, to_y;
    double speed;
    double vision; /* radius at which it meets others */
} scalesim_move;

#define SCALESIM_NOWHERE SCALESIM_VALUE(scalesim_move, NAN, NAN, NULL, NAN, NAN, NAN, NAN)

/* Who calls next: `agents` in order, one per clock unit from now; or all at clock value `at`; or each with one of
 * `probabilities` per clock unit. None calls before clock value `not_before`. Begin with SCALESIM_NO_PLAN. */
typedef struct {
    const char *const *agents;
    size_t count;
    double at;
    const double *probabilities; /* `count` of them, or NULL */
    double not_before;
} scalesim_plan;

#define SCALESIM_NO_PLAN SCALESIM_VALUE(scalesim_plan, NULL, 0, NAN, NULL, NAN)

/* What memory an agent's requests use: a LoRA (its directory, and the model name that requests use), and/or a prompt
 * prefix as at most one of token ids and text. `model` is the base model's served name. */
typedef struct {
    const char *lora, *lora_name;
    const uint32_t *token_ids;
    size_t token_count;
    const char *text;
    const char *cache_salt;
    const char *model;
} scalesim_memory;

typedef struct {
    uint64_t sent;    /* handed to ZeroMQ, those of snapshots not counted */
    uint64_t dropped; /* not sent, as no daemon listened or too much waited; snapshots say what they changed */
    uint64_t invalid; /* ignored */
} scalesim_counts;

/* Open a stream of events of one simulation; `options` may be NULL. Returns NULL, with errno set, for a name, clock,
 * address or keys that can't be: ENOTSUP for keys where libzmq was built without CURVE. */
scalesim *scalesim_open(const char *simulation, const scalesim_options *options);

/* Send what waits and stream.closed, within about two seconds, and free everything. */
void scalesim_close(scalesim *publisher);

/* Wait at most `seconds` until a daemon listens and has been sent everything; return whether it has. */
bool scalesim_flush(scalesim *publisher, double seconds);

/* Return how many events were sent, dropped and invalid. */
scalesim_counts scalesim_count(scalesim *publisher);

/* The simulation's clock now shows `now`. */
bool scalesim_step(scalesim *publisher, double now);

/* An agent exists. */
bool scalesim_register(scalesim *publisher, const char *agent);

/* An agent is gone for good: its memory may be dropped. */
bool scalesim_release(scalesim *publisher, const char *agent);

/* An agent acts without the LLM for `units` clock units from now; `activity` names what it does, or is NULL. */
bool scalesim_activity_for(scalesim *publisher, const char *agent, double units, const char *activity);

/* An agent acts without the LLM until clock value `until`. */
bool scalesim_activity_until(scalesim *publisher, const char *agent, double until, const char *activity);

/* An agent is somewhere and goes somewhere. */
bool scalesim_moved(scalesim *publisher, const char *agent, const scalesim_move *move);

/* Something outside the plan makes an agent call now: distance 0. */
bool scalesim_woken(scalesim *publisher, const char *agent);

/* No call of an agent is foreseen. */
bool scalesim_idled(scalesim *publisher, const char *agent);

/* Who calls next; replaces the earlier plan. */
bool scalesim_planned(scalesim *publisher, const scalesim_plan *plan);

/* An LLM request of an agent is being sent; `request` tells it from others of the same agent, or is NULL. */
bool scalesim_started(scalesim *publisher, const char *agent, const char *request);

/* An LLM request of an agent has been answered, or has failed. */
bool scalesim_finished(scalesim *publisher, const char *agent, const char *request);

/* What memory an agent's requests use. */
bool scalesim_bind(scalesim *publisher, const char *agent, const scalesim_memory *memory);

/* An agent no longer uses the memory that it bound. */
bool scalesim_unbind(scalesim *publisher, const char *agent);

#ifdef __cplusplus
}
#endif

#endif
