#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zmq.h>

#include "link.h"

#define MAX_WAITING_BYTES (8 * 1024 * 1024)
#define CLOSE_WAIT 2.0

static void free_publisher(scalesim *p) {
    ss_close_sockets(p);
    ss_clear_packed(&p->waiting);
    ss_free_state(p->state);
    ss_free_bytes(&p->opened);
    free(p->source);
    free(p->address);
    pthread_cond_destroy(&p->changed);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

static bytes pack_opened(const char *simulation, const char *source, uint64_t incarnation, const char *clock) {
    bytes opened = {0};
    ss_put_map(&opened, 6);
    ss_put_text(&opened, "type"), ss_put_text(&opened, "stream.opened");
    ss_put_text(&opened, "simulation"), ss_put_text(&opened, simulation);
    ss_put_text(&opened, "source"), ss_put_text(&opened, source);
    ss_put_text(&opened, "incarnation"), ss_put_integer(&opened, (int64_t)incarnation);
    ss_put_text(&opened, "clock"), ss_put_text(&opened, clock);
    ss_put_text(&opened, "schema_version"), ss_put_text(&opened, "1.0");
    return opened;
}

static bool is_clock(const char *clock) {
    return !strcmp(clock, "step") || !strcmp(clock, "sim_seconds") || !strcmp(clock, "wall_seconds");
}

scalesim *scalesim_open(const char *simulation, const scalesim_options *options) {
    scalesim_options told = options ? *options : (scalesim_options){0};
    const char *source = told.source ? told.source : simulation;
    const char *clock = told.clock ? told.clock : "step";
    uint64_t milliseconds = (uint64_t)(ss_read_clock(CLOCK_REALTIME) * 1000);
    if (!ss_is_valid_id(simulation) || strchr(simulation, '/') || !ss_is_valid_id(source) || !is_clock(clock)) {
        errno = EINVAL;
        return NULL;
    }
    if (told.curve && !zmq_has("curve")) {
        errno = ENOTSUP;
        return NULL;
    }
    scalesim *p = ss_take_memory(NULL, sizeof *p);
    *p = (scalesim){.keeping = true, .stop_by = NEVER, .deadline = NEVER, .knock_at = NEVER, .restated_up_to = -1};
    p->outbox_end = &p->outbox;
    p->source = ss_copy_text(source);
    p->address = ss_copy_text(told.address ? told.address : "tcp://127.0.0.1:5600");
    p->opened = pack_opened(simulation, source, told.incarnation ? told.incarnation : milliseconds, clock);
    p->snapshot_every = told.snapshot_every > 0 ? fmin(told.snapshot_every, LONGEST_WAIT) : 30;
    p->state = ss_new_state();
    pthread_condattr_t by_monotonic;
    pthread_condattr_init(&by_monotonic);
    pthread_condattr_setclock(&by_monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&p->changed, &by_monotonic);
    pthread_condattr_destroy(&by_monotonic);
    pthread_mutex_init(&p->lock, NULL);
    int failed = ss_connect_sockets(p, told.curve) ? 0 : zmq_errno();
    if (!failed) failed = pthread_create(&p->thread, NULL, ss_serve, p);
    if (!failed) return p;
    free_publisher(p);
    errno = failed;
    return NULL;
}

void scalesim_close(scalesim *p) {
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    p->stop_by = ss_read_clock(CLOCK_MONOTONIC) + CLOSE_WAIT;
    p->woken = false;
    ss_wake(p);
    pthread_mutex_unlock(&p->lock);
    pthread_join(p->thread, NULL);
    free_publisher(p);
}

bool scalesim_flush(scalesim *p, double seconds) {
    double until = ss_read_clock(CLOCK_MONOTONIC) + fmin(seconds, LONGEST_WAIT);
    struct timespec deadline = {(time_t)until, (long)((until - floor(until)) * 1e9)};
    pthread_mutex_lock(&p->lock);
    while (!ss_is_settled(p) && !pthread_cond_timedwait(&p->changed, &p->lock, &deadline)) continue;
    bool settled = ss_is_settled(p);
    pthread_mutex_unlock(&p->lock);
    return settled;
}

scalesim_counts scalesim_count(scalesim *p) {
    pthread_mutex_lock(&p->lock);
    scalesim_counts counts = p->counts;
    pthread_mutex_unlock(&p->lock);
    return counts;
}

static bool say(scalesim *p, const event *what) {
    bytes packed = {0};
    bool valid = ss_is_valid_event(what);
    if (valid) {
        ss_pack_event(&packed, what, NAN);
        valid = packed.length <= MAX_EVENT_BYTES;
    }
    pthread_mutex_lock(&p->lock);
    if (!valid) {
        p->counts.invalid++;
    } else {
        ss_apply_event(p->state, what);
        if (!p->keeping) {
            p->counts.dropped++;
        } else {
            if (p->waiting.all.length + packed.length > MAX_WAITING_BYTES) ss_drop_waiting(p);
            ss_push_packed(&p->waiting, packed.at, packed.length);
            ss_wake(p);
        }
    }
    pthread_mutex_unlock(&p->lock);
    ss_free_bytes(&packed);
    return valid;
}

static event about(event_kind kind, const char *agent) {
    return (event){
        .kind = kind, .agent = agent, .now = NAN, .units = NAN, .until = NAN, .move = SCALESIM_NOWHERE, .plan = SCALESIM_NO_PLAN};
}

bool scalesim_step(scalesim *publisher, double now) {
    event what = about(STEP_ADVANCED, NULL);
    what.now = now;
    return say(publisher, &what);
}

bool scalesim_register(scalesim *publisher, const char *agent) {
    event what = about(AGENT_REGISTERED, agent);
    return say(publisher, &what);
}

bool scalesim_release(scalesim *publisher, const char *agent) {
    event what = about(AGENT_RELEASED, agent);
    return say(publisher, &what);
}

bool scalesim_activity_for(scalesim *publisher, const char *agent, double units, const char *activity) {
    event what = about(ACTIVITY_STARTED, agent);
    what.units = units;
    what.activity = activity;
    return say(publisher, &what);
}

bool scalesim_activity_until(scalesim *publisher, const char *agent, double until, const char *activity) {
    event what = about(ACTIVITY_STARTED, agent);
    what.until = until;
    what.activity = activity;
    return say(publisher, &what);
}

bool scalesim_moved(scalesim *publisher, const char *agent, const scalesim_move *move) {
    event what = about(AGENT_MOVED, agent);
    what.move = *move;
    return say(publisher, &what);
}

bool scalesim_woken(scalesim *publisher, const char *agent) {
    event what = about(AGENT_WOKEN, agent);
    return say(publisher, &what);
}

bool scalesim_idled(scalesim *publisher, const char *agent) {
    event what = about(AGENT_IDLED, agent);
    return say(publisher, &what);
}

bool scalesim_planned(scalesim *publisher, const scalesim_plan *plan) {
    event what = about(PLAN_DECLARED, NULL);
    what.plan = *plan;
    return say(publisher, &what);
}

bool scalesim_started(scalesim *publisher, const char *agent, const char *request) {
    event what = about(INVOCATION_STARTED, agent);
    what.request = request;
    return say(publisher, &what);
}

bool scalesim_finished(scalesim *publisher, const char *agent, const char *request) {
    event what = about(INVOCATION_FINISHED, agent);
    what.request = request;
    return say(publisher, &what);
}

bool scalesim_bind(scalesim *publisher, const char *agent, const scalesim_memory *memory) {
    event what = about(MEMORY_BOUND, agent);
    what.memory = *memory;
    return say(publisher, &what);
}

bool scalesim_unbind(scalesim *publisher, const char *agent) {
    event what = about(MEMORY_UNBOUND, agent);
    return say(publisher, &what);
}
