#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zmq.h>

#include "link.h"

#define MAX_WAITING_BYTES (8 * 1024 * 1024)
#define CLOSE_WAIT 2.0

static void free_publisher(scalesim *p) {
    close_sockets(p);
    clear_packed(&p->waiting);
    free_state(p->state);
    free_bytes(&p->opened);
    free(p->source);
    pthread_cond_destroy(&p->changed);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

static bytes pack_opened(const char *simulation, const char *source, uint64_t incarnation, const char *clock) {
    bytes opened = {0};
    put_map(&opened, 6);
    put_text(&opened, "type"), put_text(&opened, "stream.opened");
    put_text(&opened, "simulation"), put_text(&opened, simulation);
    put_text(&opened, "source"), put_text(&opened, source);
    put_text(&opened, "incarnation"), put_integer(&opened, (int64_t)incarnation);
    put_text(&opened, "clock"), put_text(&opened, clock);
    put_text(&opened, "schema_version"), put_text(&opened, "1.0");
    return opened;
}

static bool is_clock(const char *clock) {
    return !strcmp(clock, "step") || !strcmp(clock, "sim_seconds") || !strcmp(clock, "wall_seconds");
}

scalesim *scalesim_open(const char *simulation, const scalesim_options *options) {
    scalesim_options told = options ? *options : (scalesim_options){0};
    const char *source = told.source ? told.source : simulation;
    const char *clock = told.clock ? told.clock : "step";
    uint64_t milliseconds = (uint64_t)(read_clock(CLOCK_REALTIME) * 1000);
    if (!is_valid_id(simulation) || strchr(simulation, '/') || !is_valid_id(source) || !is_clock(clock)) {
        errno = EINVAL;
        return NULL;
    }
    scalesim *p = take_memory(NULL, sizeof *p);
    *p = (scalesim){.keeping = true, .stop_by = NEVER, .deadline = NEVER, .restated_up_to = -1};
    p->outbox_end = &p->outbox;
    p->source = copy_text(source);
    p->opened = pack_opened(simulation, source, told.incarnation ? told.incarnation : milliseconds, clock);
    p->snapshot_every = told.snapshot_every > 0 ? told.snapshot_every : 30;
    p->state = new_state();
    pthread_condattr_t by_monotonic;
    pthread_condattr_init(&by_monotonic);
    pthread_condattr_setclock(&by_monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&p->changed, &by_monotonic);
    pthread_condattr_destroy(&by_monotonic);
    pthread_mutex_init(&p->lock, NULL);
    int failed = connect_sockets(p, told.address ? told.address : "tcp://127.0.0.1:5600") ? 0 : zmq_errno();
    if (!failed) failed = pthread_create(&p->thread, NULL, serve, p);
    if (!failed) return p;
    free_publisher(p);
    errno = failed;
    return NULL;
}

void scalesim_close(scalesim *p) {
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    p->stop_by = read_clock(CLOCK_MONOTONIC) + CLOSE_WAIT;
    p->woken = false;
    wake(p);
    pthread_mutex_unlock(&p->lock);
    pthread_join(p->thread, NULL);
    free_publisher(p);
}

bool scalesim_flush(scalesim *p, double seconds) {
    double until = read_clock(CLOCK_MONOTONIC) + seconds;
    struct timespec deadline = {(time_t)until, (long)((until - floor(until)) * 1e9)};
    pthread_mutex_lock(&p->lock);
    while (!is_settled(p) && !pthread_cond_timedwait(&p->changed, &p->lock, &deadline)) continue;
    bool settled = is_settled(p);
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
    bool valid = is_valid_event(what);
    if (valid) {
        pack_event(&packed, what, NAN);
        valid = packed.length <= MAX_EVENT_BYTES;
    }
    pthread_mutex_lock(&p->lock);
    if (!valid) {
        p->counts.invalid++;
    } else {
        apply_event(p->state, what);
        if (!p->keeping) {
            p->counts.dropped++;
        } else {
            if (p->waiting.all.length + packed.length > MAX_WAITING_BYTES) drop_waiting(p);
            push_packed(&p->waiting, packed.at, packed.length);
            wake(p);
        }
    }
    pthread_mutex_unlock(&p->lock);
    free_bytes(&packed);
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
