/* What a simulation's threads and the publisher's own share, and the thread that owns the socket to the daemon. */
#ifndef SCALESIM_LINK_H
#define SCALESIM_LINK_H

#include <pthread.h>

#include "scalesim.h"
#include "state.h"

#define NEVER INFINITY
#define LONGEST_WAIT (INT32_MAX / 1000 - 1) /* in seconds: what ZeroMQ can wait for */

typedef enum { AWAY, OPENING, OPEN, REFUSED } phase; /* OPENING: stream.opened is sent, its welcome awaited */

typedef struct message {
    struct message *next;
    bytes payload;
    size_t events;
} message;

struct scalesim {
    /* What the simulation and the thread share, under `lock`. */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    state *state;
    packed_list waiting;
    scalesim_counts counts;
    bool snapshot_due, keeping, live, in_hand, woken;
    double stop_by;
    void *wake_out;

    /* The thread's own; times are monotonic seconds. */
    pthread_t thread;
    void *context, *socket, *monitor, *wake_in;
    char *source;
    bytes opened;
    char *address;
    double snapshot_every, deadline, next_snapshot, knock_at;
    phase phase;
    uint64_t seq;
    int64_t restated_up_to;
    message *outbox, **outbox_end;
    bool blocked, more_waits, turned_away;
};

double ss_read_clock(clockid_t which); /* seconds */

/* The caller of these three holds the lock. */
void ss_drop_waiting(scalesim *p);
bool ss_is_settled(const scalesim *p);
void ss_wake(scalesim *p);

bool ss_connect_sockets(scalesim *p, const scalesim_curve *curve); /* false with zmq_errno */
void ss_close_sockets(scalesim *p);
void *ss_serve(void *publisher); /* the thread's whole life */

#endif
