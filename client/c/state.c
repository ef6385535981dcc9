#include "state.h"

#include <stdlib.h>
#include <string.h>

/* One event that holds, in the ring of all in the order in which they were said. */
typedef struct said {
    struct said *before, *after;
    bytes packed;
} said;

typedef struct invocation {
    struct invocation *next;
    char *request;
    said *said;
} invocation;

typedef struct agent {
    struct agent *next;
    char *name;
    said *places[PLACES];
    invocation *running;
} agent;

/* A plan, and who of it has called since or won't. */
typedef struct {
    scalesim_plan plan;
    double declared_at;
    bool *out;
    bool some_out;
    said *said;
} declared;

struct state {
    agent **buckets;
    size_t room, agents;
    said ring;
    declared plan;
    double now;
};

static said *say(state *in, const event *of, double stamp) {
    said *new = ss_take_memory(NULL, sizeof *new);
    *new = (said){in->ring.before, &in->ring, {0}};
    new->before->after = new->after->before = new;
    ss_pack_event(&new->packed, of, stamp);
    return new;
}

static void unsay(said **place) {
    said *old = *place;
    if (!old) return;
    old->before->after = old->after;
    old->after->before = old->before;
    ss_free_bytes(&old->packed);
    free(old);
    *place = NULL;
}

static agent **find(state *in, const char *name) {
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    for (const char *at = name; *at; at++) hash = (hash ^ (unsigned char)*at) * 1099511628211u;
    agent **found = &in->buckets[hash & (in->room - 1)];
    while (*found && strcmp((*found)->name, name)) found = &(*found)->next;
    return found;
}

static void make_room(state *in) {
    if (in->buckets && in->agents < in->room) return;
    agent **old = in->buckets;
    size_t old_room = in->room;
    in->room = old_room ? 2 * old_room : 64;
    in->buckets = ss_take_memory(NULL, in->room * sizeof *in->buckets);
    for (size_t i = 0; i < in->room; i++) in->buckets[i] = NULL;
    for (size_t i = 0; i < old_room; i++)
        for (agent *moved = old[i], *next; moved; moved = next) {
            next = moved->next;
            moved->next = NULL;
            *find(in, moved->name) = moved;
        }
    free(old);
}

static agent *take_agent(state *in, const char *name) {
    agent **found = find(in, name);
    if (*found) return *found;
    make_room(in);
    found = find(in, name);
    *found = ss_take_memory(NULL, sizeof **found);
    **found = (agent){.name = ss_copy_text(name)};
    in->agents++;
    event registered = {.kind = AGENT_REGISTERED, .agent = name, .units = NAN};
    (*found)->places[AGENT_REGISTERED] = say(in, &registered, NAN);
    return *found;
}

static void finish(agent *of, const char *request) {
    for (invocation **at = &of->running; *at; at = &(*at)->next) {
        invocation *found = *at;
        if (!request != !found->request || (request && strcmp(request, found->request))) continue;
        *at = found->next;
        unsay(&found->said);
        free(found->request);
        free(found);
        return;
    }
}

static void start(state *in, agent *of, const event *what) {
    unsay(&of->places[ACTIVITY_STARTED]);
    unsay(&of->places[AGENT_WOKEN]);
    unsay(&of->places[AGENT_IDLED]);
    finish(of, what->request);
    invocation *new = ss_take_memory(NULL, sizeof *new);
    *new = (invocation){of->running, ss_copy_text(what->request), say(in, what, in->now)};
    of->running = new;
}

static void release(state *in, const char *name) {
    agent **found = find(in, name), *gone = *found;
    if (!gone) return;
    *found = gone->next;
    in->agents--;
    for (int place = 0; place < PLACES; place++) unsay(&gone->places[place]);
    while (gone->running) finish(gone, gone->running->request);
    free(gone->name);
    free(gone);
}

static void forget_plan(state *in) {
    unsay(&in->plan.said);
    for (size_t i = 0; i < in->plan.plan.count; i++) free((char *)in->plan.plan.agents[i]);
    free((void *)in->plan.plan.agents);
    free((void *)in->plan.plan.probabilities);
    free(in->plan.out);
    in->plan = (declared){.plan = SCALESIM_NO_PLAN};
}

static void declare(state *in, const event *what) {
    forget_plan(in);
    size_t count = what->plan.count;
    const char **agents = ss_take_memory(NULL, count * sizeof *agents);
    double *probabilities = what->plan.probabilities ? ss_take_memory(NULL, count * sizeof *probabilities) : NULL;
    bool *out = ss_take_memory(NULL, count * sizeof *out);
    for (size_t i = 0; i < count; i++) {
        agents[i] = ss_copy_text(what->plan.agents[i]);
        if (probabilities) probabilities[i] = what->plan.probabilities[i];
        out[i] = false;
    }
    in->plan = (declared){.plan = what->plan, .declared_at = in->now, .out = out, .said = say(in, what, in->now)};
    in->plan.plan.agents = agents;
    in->plan.plan.probabilities = probabilities;
}

static void take_out_of_plan(state *in, const char *name) {
    /* A plain order stays whole, as its places are its times. */
    if (!in->plan.said || (isnan(in->plan.plan.at) && !in->plan.plan.probabilities)) return;
    for (size_t i = 0; i < in->plan.plan.count; i++)
        if (!strcmp(in->plan.plan.agents[i], name)) in->plan.out[i] = in->plan.some_out = true;
}

static void renew_plan(declared *in) {
    event rest = {.kind = PLAN_DECLARED, .units = NAN, .plan = in->plan};
    const char **agents = ss_take_memory(NULL, in->plan.count * sizeof *agents);
    double *probabilities = NULL;
    if (in->plan.probabilities) probabilities = ss_take_memory(NULL, in->plan.count * sizeof *probabilities);
    size_t kept = 0;
    for (size_t i = 0; i < in->plan.count; i++) {
        if (in->out[i]) continue;
        agents[kept] = in->plan.agents[i];
        if (probabilities) probabilities[kept] = in->plan.probabilities[i];
        kept++;
    }
    rest.plan.agents = agents;
    rest.plan.probabilities = probabilities;
    rest.plan.count = kept;
    ss_free_bytes(&in->said->packed);
    ss_pack_event(&in->said->packed, &rest, in->declared_at);
    free(agents);
    free(probabilities);
    in->some_out = false;
}

static void advance(state *in, double now) {
    if (!isnan(in->now) && now < in->now) {
        /* The simulation starts over: what it foresaw is void, what the agents are is not. */
        forget_plan(in);
        for (size_t i = 0; i < in->room; i++)
            for (agent *each = in->buckets[i]; each; each = each->next)
                for (int place = ACTIVITY_STARTED; place < PLACES; place++) unsay(&each->places[place]);
    }
    in->now = now;
}

state *ss_new_state(void) {
    state *new = ss_take_memory(NULL, sizeof *new);
    *new = (state){.now = NAN, .plan = {.plan = SCALESIM_NO_PLAN}};
    new->ring.before = new->ring.after = &new->ring;
    make_room(new);
    return new;
}

void ss_free_state(state *of) {
    forget_plan(of);
    for (size_t i = 0; i < of->room; i++)
        while (of->buckets[i]) release(of, of->buckets[i]->name);
    free(of->buckets);
    free(of);
}

void ss_apply_event(state *to, const event *of) {
    if (of->kind == STEP_ADVANCED) {
        advance(to, of->now);
        return;
    }
    if (of->kind == PLAN_DECLARED) {
        declare(to, of);
        return;
    }
    if (of->kind == AGENT_RELEASED) {
        release(to, of->agent);
        take_out_of_plan(to, of->agent);
        return;
    }
    agent *whose = take_agent(to, of->agent);
    if (of->kind == INVOCATION_STARTED || of->kind == AGENT_IDLED) take_out_of_plan(to, of->agent);
    switch (of->kind) {
    case AGENT_REGISTERED: break;
    case INVOCATION_STARTED: start(to, whose, of); break;
    case INVOCATION_FINISHED: finish(whose, of->request); break;
    default: {
        said **place = &whose->places[of->kind == MEMORY_UNBOUND ? MEMORY_BOUND : of->kind];
        unsay(place);
        *place = say(to, of, to->now);
    }
    }
}

double ss_clock_of(const state *of) {
    return of->now;
}

packed_list ss_snapshot_of(state *of) {
    if (of->plan.said && of->plan.some_out) renew_plan(&of->plan);
    packed_list all = {0};
    for (said *each = of->ring.after; each != &of->ring; each = each->after)
        ss_push_packed(&all, each->packed.at, each->packed.length);
    return all;
}
