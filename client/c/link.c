#include "link.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zmq.h>

enum {
    SEND_HIGH_WATER_MARK = 1000,
    LINGER_MS = 500,
    HEARTBEAT_MS = 5000,
    RECONNECT_MAX_MS = 2000,
    REFUSALS = ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL,
};
static const double START_GRACE = 1, WELCOME_WAIT = 2, RETRY_WAIT = 0.05;

double ss_read_clock(clockid_t which) {
    struct timespec now;
    clock_gettime(which, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static double monotonic(void) {
    return ss_read_clock(CLOCK_MONOTONIC);
}

static double earlier(double one, double other) {
    return one < other ? one : other;
}

void ss_drop_waiting(scalesim *p) {
    p->counts.dropped += p->waiting.count;
    ss_clear_packed(&p->waiting);
    p->snapshot_due = true;
}

bool ss_is_settled(const scalesim *p) {
    return p->live && !p->waiting.count && !p->snapshot_due && !p->in_hand;
}

void ss_wake(scalesim *p) {
    if (p->woken || !p->wake_out) return;
    p->woken = true;
    zmq_send(p->wake_out, "", 0, ZMQ_DONTWAIT); /* Fails where the thread has enough to read already. */
}

static void require_snapshot(scalesim *p) {
    pthread_mutex_lock(&p->lock);
    p->snapshot_due = true;
    pthread_mutex_unlock(&p->lock);
}

/* The daemon is away: nothing is kept for it until it is back, and then a snapshot is due. */
static void lose(scalesim *p) {
    pthread_mutex_lock(&p->lock);
    for (message *each = p->outbox, *next; each; each = next) {
        next = each->next;
        p->counts.dropped += each->events;
        ss_free_bytes(&each->payload);
        free(each);
    }
    p->outbox = NULL;
    p->outbox_end = &p->outbox;
    ss_drop_waiting(p);
    p->keeping = p->live = p->in_hand = false;
    pthread_mutex_unlock(&p->lock);
}

static bool transmit(scalesim *p, const bytes *payload) {
    uint8_t seq[8];
    for (int i = 0; i < 8; i++) seq[i] = (uint8_t)(p->seq >> (56 - 8 * i));
    if (zmq_send(p->socket, p->source, strlen(p->source), ZMQ_DONTWAIT | ZMQ_SNDMORE) < 0) return false;
    zmq_send(p->socket, seq, sizeof seq, ZMQ_SNDMORE);
    zmq_send(p->socket, payload->at, payload->length, 0);
    p->seq++;
    return true;
}

static bool transmit_one(scalesim *p, const bytes *event) {
    packed_list only = {0};
    ss_push_packed(&only, event->at, event->length);
    bytes payload = ss_join_events(ss_read_clock(CLOCK_REALTIME), &only, 0, 1);
    bool sent = transmit(p, &payload);
    ss_free_bytes(&payload);
    ss_clear_packed(&only);
    return sent;
}

static void open_stream(scalesim *p) {
    p->phase = OPENING;
    p->deadline = monotonic() + (transmit_one(p, &p->opened) ? WELCOME_WAIT : RETRY_WAIT);
}

static void welcome(scalesim *p, bool resync) {
    p->phase = OPEN;
    p->deadline = NEVER;
    pthread_mutex_lock(&p->lock);
    p->keeping = p->live = true;
    if (resync) p->snapshot_due = true;
    pthread_mutex_unlock(&p->lock);
}

static void obey(scalesim *p, const control *said) {
    if (said->kind == WELCOME && said->refused) {
        fprintf(stderr, "scalesim: the daemon refuses stream %s: %s\n", p->source, said->error);
        p->phase = REFUSED;
        p->deadline = NEVER;
        lose(p);
    } else if (said->kind == WELCOME) {
        welcome(p, said->resync);
    } else if (said->kind == RESYNC && p->phase == OPEN) {
        /* A daemon that doesn't know this stream hears it opened anew; an answer that is on its way is not doubled. */
        if (said->last_seq < 0 || said->last_seq >= p->restated_up_to) require_snapshot(p);
        if (said->last_seq < 0) open_stream(p);
    }
}

static void turn_away(scalesim *p) {
    if (!p->turned_away)
        fprintf(stderr, "scalesim: the daemon ends the handshake: it goes, or it takes keys, or none, or others (curve)\n");
    p->turned_away = true;
    p->knock_at = monotonic() + RECONNECT_MAX_MS / 1000.0;
}

/* ZeroMQ gives up a connection that was refused; the daemon may know the key by now, or ask for none. */
static void knock_again(scalesim *p) {
    p->knock_at = NEVER;
    zmq_disconnect(p->socket, p->address);
    zmq_connect(p->socket, p->address);
}

static void follow_connection(scalesim *p) {
    zmq_msg_t part;
    zmq_msg_init(&part);
    while (zmq_msg_recv(&part, p->monitor, ZMQ_DONTWAIT) >= 0) {
        uint16_t what = 0;
        if (zmq_msg_size(&part) >= sizeof what) memcpy(&what, zmq_msg_data(&part), sizeof what);
        zmq_msg_recv(&part, p->monitor, 0); /* The address. */
        if (what == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) {
            p->turned_away = false;
            p->knock_at = NEVER;
            open_stream(p);
        } else if (what & REFUSALS) {
            turn_away(p);
        } else if (what == ZMQ_EVENT_DISCONNECTED) {
            p->phase = AWAY;
            p->deadline = NEVER;
            lose(p);
        }
    }
    zmq_msg_close(&part);
}

static void listen_to_daemon(scalesim *p) {
    zmq_msg_t part;
    zmq_msg_init(&part);
    while (zmq_msg_recv(&part, p->socket, ZMQ_DONTWAIT) >= 0) {
        int frames = 1;
        for (; zmq_msg_more(&part); frames++) zmq_msg_recv(&part, p->socket, 0);
        const uint8_t *at = zmq_msg_data(&part);
        reader payload = {at, at + zmq_msg_size(&part)};
        control said;
        if (frames != 3) continue;
        uint32_t left = ss_open_controls(&payload);
        for (; left && ss_read_control(&payload, &said); left--) obey(p, &said);
    }
    zmq_msg_close(&part);
}

static void watch_time(scalesim *p) {
    double now = monotonic();
    if (now >= p->knock_at) knock_again(p);
    if (now >= p->deadline) {
        p->deadline = NEVER;
        lose(p);
        if (p->phase == OPENING) open_stream(p);
    }
    if (now >= p->next_snapshot) {
        p->next_snapshot = now + p->snapshot_every;
        if (p->phase == OPEN) require_snapshot(p);
    }
}

static void put_in_outbox(scalesim *p, bytes payload, size_t events) {
    message *new = ss_take_memory(NULL, sizeof *new);
    *new = (message){NULL, payload, events};
    *p->outbox_end = new;
    p->outbox_end = &new->next;
}

static size_t count_chunks(const packed_list *of) {
    size_t chunks = 0;
    for (size_t first = 0; first < of->count; first += ss_chunk_length(of, first)) chunks++;
    return chunks;
}

static void refill(scalesim *p) {
    pthread_mutex_lock(&p->lock);
    packed_list events = p->waiting, snapshot = {0};
    bool restates = p->snapshot_due;
    if (restates) snapshot = ss_snapshot_of(p->state);
    double now = ss_clock_of(p->state);
    p->waiting = (packed_list){0};
    p->snapshot_due = false;
    p->in_hand = events.count || restates;
    pthread_mutex_unlock(&p->lock);

    double ts = ss_read_clock(CLOCK_REALTIME);
    size_t messages = count_chunks(&events), parts = count_chunks(&snapshot);
    for (size_t first = 0, count; first < events.count; first += count) {
        count = ss_chunk_length(&events, first);
        put_in_outbox(p, ss_join_events(ts, &events, first, count), count);
    }
    if (restates) {
        if (!parts) parts = 1;
        for (size_t part = 0, first = 0, count; part < parts; part++, first += count) {
            count = ss_chunk_length(&snapshot, first);
            bytes payload = ss_join_snapshot(ts, (uint32_t)part, (uint32_t)parts, &snapshot, first, count, now);
            put_in_outbox(p, payload, 0);
        }
        p->restated_up_to = (int64_t)(p->seq + messages + parts) - 1;
        p->next_snapshot = monotonic() + p->snapshot_every;
    }
    ss_clear_packed(&events);
    ss_clear_packed(&snapshot);
}

static void send_waiting(scalesim *p) {
    p->blocked = p->more_waits = false;
    if (p->phase != OPEN) return;
    if (!p->outbox) refill(p);
    while (p->outbox) {
        message *first = p->outbox;
        if (!transmit(p, &first->payload)) {
            p->blocked = true;
            return;
        }
        pthread_mutex_lock(&p->lock);
        p->counts.sent += first->events;
        pthread_mutex_unlock(&p->lock);
        p->outbox = first->next;
        if (!p->outbox) p->outbox_end = &p->outbox;
        ss_free_bytes(&first->payload);
        free(first);
    }
    pthread_mutex_lock(&p->lock);
    p->in_hand = false;
    p->more_waits = p->waiting.count || p->snapshot_due;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
}

/* Empty the wake-up pipe, and only then take the mark away: the other way round, a wake-up could be swallowed. */
static void rest(scalesim *p) {
    char byte;
    while (zmq_recv(p->wake_in, &byte, 1, ZMQ_DONTWAIT) >= 0) continue;
    pthread_mutex_lock(&p->lock);
    p->woken = false;
    pthread_mutex_unlock(&p->lock);
}

static bool is_over(scalesim *p, double stop_by, bool settled) {
    if (stop_by == NEVER) return false;
    bool hopeless = p->phase == REFUSED || (p->phase == AWAY && p->deadline == NEVER);
    return (p->phase == OPEN && settled) || hopeless || monotonic() >= stop_by;
}

void *ss_serve(void *argument) {
    scalesim *p = argument;
    p->next_snapshot = monotonic() + p->snapshot_every;
    p->deadline = monotonic() + START_GRACE;
    for (;;) {
        pthread_mutex_lock(&p->lock);
        double stop_by = p->stop_by;
        bool settled = ss_is_settled(p);
        pthread_mutex_unlock(&p->lock);
        if (is_over(p, stop_by, settled)) break;
        zmq_pollitem_t items[] = {
            {p->socket, 0, (short)(ZMQ_POLLIN | (p->blocked ? ZMQ_POLLOUT : 0)), 0},
            {p->monitor, 0, ZMQ_POLLIN, 0},
            {p->wake_in, 0, ZMQ_POLLIN, 0},
        };
        double wait = earlier(earlier(p->next_snapshot, p->deadline), earlier(p->knock_at, stop_by)) - monotonic();
        zmq_poll(items, 3, p->more_waits || wait <= 0 ? 0 : (long)(wait * 1000) + 1);
        rest(p);
        follow_connection(p);
        listen_to_daemon(p);
        watch_time(p);
        send_waiting(p);
    }
    if (p->phase == OPEN) {
        bytes closed = {0};
        ss_put_map(&closed, 1), ss_put_text(&closed, "type"), ss_put_text(&closed, "stream.closed");
        transmit_one(p, &closed);
        ss_free_bytes(&closed);
    }
    lose(p);
    return NULL;
}

static void set_option(void *socket, int option, int value) {
    zmq_setsockopt(socket, option, &value, sizeof value);
}

static bool use_keys(void *socket, const scalesim_curve *curve) {
    return !zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, curve->server_key, 40) &&
           !zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, curve->public_key, 40) &&
           !zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, curve->secret_key, 40);
}

bool ss_connect_sockets(scalesim *p, const scalesim_curve *curve) {
    static const char *const wake_at = "inproc://wake", *const monitor_at = "inproc://monitor";
    p->context = zmq_ctx_new();
    p->socket = zmq_socket(p->context, ZMQ_DEALER);
    p->monitor = zmq_socket(p->context, ZMQ_PAIR);
    p->wake_in = zmq_socket(p->context, ZMQ_PAIR);
    p->wake_out = zmq_socket(p->context, ZMQ_PAIR);
    if (!p->socket || !p->monitor || !p->wake_in || !p->wake_out) return false;
    set_option(p->socket, ZMQ_SNDHWM, SEND_HIGH_WATER_MARK);
    set_option(p->socket, ZMQ_LINGER, LINGER_MS);
    set_option(p->socket, ZMQ_IMMEDIATE, 1); /* Nothing is queued for a daemon that isn't there. */
    set_option(p->socket, ZMQ_HEARTBEAT_IVL, HEARTBEAT_MS);
    set_option(p->socket, ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS);
    set_option(p->monitor, ZMQ_LINGER, 0);
    set_option(p->wake_in, ZMQ_LINGER, 0);
    set_option(p->wake_out, ZMQ_LINGER, 0);
    int events = ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED | REFUSALS;
    return (!curve || use_keys(p->socket, curve)) && !zmq_socket_monitor(p->socket, monitor_at, events) && !zmq_connect(p->monitor, monitor_at) &&
           !zmq_bind(p->wake_in, wake_at) && !zmq_connect(p->wake_out, wake_at) && !zmq_connect(p->socket, p->address);
}

void ss_close_sockets(scalesim *p) {
    void *sockets[] = {p->wake_out, p->wake_in, p->socket, p->monitor};
    for (size_t i = 0; i < sizeof sockets / sizeof *sockets; i++)
        if (sockets[i]) zmq_close(sockets[i]);
    if (p->context) zmq_ctx_term(p->context);
}
