/* Events, and the newest state that a source has said, kept as the shortest log that says it again. */
#ifndef SCALESIM_STATE_H
#define SCALESIM_STATE_H

#include "scalesim.h"
#include "wire.h"

typedef enum {
    /* Those that an agent has one of come first: they number its places in the state. */
    AGENT_REGISTERED,
    MEMORY_BOUND,
    ACTIVITY_STARTED,
    AGENT_MOVED,
    AGENT_WOKEN,
    AGENT_IDLED,
    PLACES,
    MEMORY_UNBOUND = PLACES,
    INVOCATION_STARTED,
    INVOCATION_FINISHED,
    AGENT_RELEASED,
    STEP_ADVANCED,
    PLAN_DECLARED,
} event_kind;

#define KINDS (PLAN_DECLARED + 1)
extern const char *const ss_event_types[KINDS]; /* the names on the wire */

/* One event; which of the fields count depends on its kind. */
typedef struct {
    event_kind kind;
    const char *agent;
    double now;
    double units, until;
    const char *activity, *request;
    scalesim_move move;
    scalesim_memory memory;
    scalesim_plan plan;
} event;

bool ss_is_valid_id(const char *id);
bool ss_is_valid_event(const event *of);

/* Append an event in msgpack. With a `stamp` (a clock value, else NAN) it says when it was said, and until when instead
 * of how long. */
void ss_pack_event(bytes *to, const event *of, double stamp);

typedef struct state state;

state *ss_new_state(void);
void ss_free_state(state *of);
void ss_apply_event(state *to, const event *of);
double ss_clock_of(const state *of); /* NAN before the first step */

/* Return the events that still hold, in the order in which they were said. One whose meaning depends on when it was
 * said carries `now`, the clock value of then. */
packed_list ss_snapshot_of(state *of);

#endif
