#include "state.h"

#include <string.h>

const char *const ss_event_types[KINDS] = {
    [AGENT_REGISTERED] = "agent.registered",
    [MEMORY_BOUND] = "memory.bound",
    [ACTIVITY_STARTED] = "agent.activity_started",
    [AGENT_MOVED] = "agent.moved",
    [AGENT_WOKEN] = "agent.woken",
    [AGENT_IDLED] = "agent.idled",
    [MEMORY_UNBOUND] = "memory.unbound",
    [INVOCATION_STARTED] = "invocation.started",
    [INVOCATION_FINISHED] = "invocation.finished",
    [AGENT_RELEASED] = "agent.released",
    [STEP_ADVANCED] = "step.advanced",
    [PLAN_DECLARED] = "plan.declared",
};

/* UTF-8 as the daemon reads it: no overlong forms, no surrogates, nothing above U+10FFFF. */
static bool is_utf8(const char *text) {
    for (const unsigned char *at = (const unsigned char *)text; *at;) {
        int more = *at < 0x80 ? 0 : *at >= 0xc2 && *at < 0xe0 ? 1 : *at >= 0xe0 && *at < 0xf0 ? 2 : 3;
        if (more == 3 && (*at < 0xf0 || *at > 0xf4)) return false;
        if ((at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xed && at[1] > 0x9f)) return false;
        if ((at[0] == 0xf0 && at[1] < 0x90) || (at[0] == 0xf4 && at[1] > 0x8f)) return false;
        for (at++; more; more--, at++)
            if ((*at & 0xc0) != 0x80) return false;
    }
    return true;
}

bool ss_is_valid_id(const char *id) {
    return id && *id && strlen(id) <= MAX_ID_BYTES && is_utf8(id);
}

static bool is_amount(double amount) {
    return isfinite(amount) && amount >= 0;
}

static bool is_amount_or_none(double amount) {
    return isnan(amount) || is_amount(amount);
}

static bool is_text_or_none(const char *text) {
    return !text || is_utf8(text);
}

static bool is_point_or_none(double x, double y) {
    return (isnan(x) && isnan(y)) || (isfinite(x) && isfinite(y));
}

static bool is_valid_memory(const scalesim_memory *memory) {
    if (memory->token_ids && (memory->text || memory->token_count > MAX_ITEMS)) return false;
    if (!memory->token_ids && !memory->text && !memory->lora && !memory->model) return false;
    if (!memory->lora != !memory->lora_name) return false;
    return (!memory->lora_name || ss_is_valid_id(memory->lora_name)) && is_text_or_none(memory->lora) &&
           is_text_or_none(memory->text) && is_text_or_none(memory->cache_salt) && is_text_or_none(memory->model);
}

static bool is_valid_plan(const scalesim_plan *plan) {
    if (plan->count > MAX_ITEMS || (plan->probabilities && !isnan(plan->at))) return false;
    for (size_t i = 0; i < plan->count; i++) {
        if (!ss_is_valid_id(plan->agents[i])) return false;
        if (plan->probabilities && !(plan->probabilities[i] >= 0 && plan->probabilities[i] <= 1)) return false;
    }
    return is_amount_or_none(plan->at) && is_amount_or_none(plan->not_before);
}

bool ss_is_valid_event(const event *of) {
    switch (of->kind) {
    case STEP_ADVANCED: return is_amount(of->now);
    case PLAN_DECLARED: return is_valid_plan(&of->plan);
    default: break;
    }
    if (!ss_is_valid_id(of->agent)) return false;
    switch (of->kind) {
    case ACTIVITY_STARTED:
        return isnan(of->units) != isnan(of->until) && is_amount_or_none(of->units) && is_amount_or_none(of->until) &&
               is_text_or_none(of->activity);
    case AGENT_MOVED:
        return is_point_or_none(of->move.x, of->move.y) && is_point_or_none(of->move.to_x, of->move.to_y) &&
               is_amount_or_none(of->move.speed) && is_amount_or_none(of->move.vision) &&
               is_text_or_none(of->move.place);
    case INVOCATION_STARTED:
    case INVOCATION_FINISHED: return is_text_or_none(of->request);
    case MEMORY_BOUND: return is_valid_memory(&of->memory);
    default: return true;
    }
}

/* A map whose length is known when it is full. */
typedef struct {
    bytes body;
    uint32_t pairs;
} fields;

static bytes *next_field(fields *to, const char *key) {
    to->pairs++;
    ss_put_text(&to->body, key);
    return &to->body;
}

static void add_text(fields *to, const char *key, const char *text) {
    if (text) ss_put_text(next_field(to, key), text);
}

static void add_number(fields *to, const char *key, double number) {
    if (!isnan(number)) ss_put_number(next_field(to, key), number);
}

static void add_point(fields *to, const char *key, double x, double y) {
    if (isnan(x)) return;
    bytes *body = next_field(to, key);
    ss_put_array(body, 2), ss_put_number(body, x), ss_put_number(body, y);
}

static void add_memory(fields *to, const scalesim_memory *memory) {
    add_text(to, "lora", memory->lora);
    add_text(to, "lora_name", memory->lora_name);
    if (memory->token_ids) {
        bytes *body = next_field(to, "token_ids");
        ss_put_array(body, (uint32_t)memory->token_count);
        for (size_t i = 0; i < memory->token_count; i++) ss_put_integer(body, memory->token_ids[i]);
    }
    add_text(to, "text", memory->text);
    add_text(to, "cache_salt", memory->cache_salt);
    add_text(to, "model", memory->model);
}

static void add_plan(fields *to, const scalesim_plan *plan) {
    bytes *body = next_field(to, "agents");
    ss_put_array(body, (uint32_t)plan->count);
    for (size_t i = 0; i < plan->count; i++) ss_put_text(body, plan->agents[i]);
    add_number(to, "at", plan->at);
    if (plan->probabilities) {
        body = next_field(to, "probabilities");
        ss_put_array(body, (uint32_t)plan->count);
        for (size_t i = 0; i < plan->count; i++) ss_put_number(body, plan->probabilities[i]);
    }
    add_number(to, "not_before", plan->not_before);
}

void ss_pack_event(bytes *to, const event *of, double stamp) {
    fields in = {0};
    bool has_time = of->kind != AGENT_REGISTERED && of->kind != MEMORY_BOUND && of->kind != MEMORY_UNBOUND;
    bool ends = !isnan(stamp) && !isnan(of->units);
    add_text(&in, "type", ss_event_types[of->kind]);
    add_text(&in, "agent", of->agent);
    switch (of->kind) {
    case STEP_ADVANCED: add_number(&in, "now", of->now); break;
    case PLAN_DECLARED: add_plan(&in, &of->plan); break;
    case MEMORY_BOUND: add_memory(&in, &of->memory); break;
    case ACTIVITY_STARTED:
        if (!ends) add_number(&in, "for", of->units);
        add_number(&in, "until", ends ? stamp + of->units : of->until);
        add_text(&in, "activity", of->activity);
        break;
    case AGENT_MOVED:
        add_point(&in, "xy", of->move.x, of->move.y);
        add_text(&in, "place", of->move.place);
        add_point(&in, "destination", of->move.to_x, of->move.to_y);
        add_number(&in, "speed", of->move.speed);
        add_number(&in, "vision", of->move.vision);
        break;
    case INVOCATION_STARTED:
    case INVOCATION_FINISHED: add_text(&in, "request", of->request); break;
    default: break;
    }
    if (has_time) add_number(&in, "now", stamp);
    ss_put_map(to, in.pairs);
    ss_put_raw(to, in.body.at, in.body.length);
    ss_free_bytes(&in.body);
}
