/* A village of five agents for some steps: build/village [address] [steps]
 * They take turns: each acts for as long as the others need, then calls its LLM. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "scalesim.h"

int main(int count, char **arguments) {
    static const char *const villagers[] = {"Ada", "Bob", "Cyd", "Dan", "Eve"};
    scalesim_options options = {.address = count > 1 ? arguments[1] : NULL};
    int steps = count > 2 ? atoi(arguments[2]) : 20;
    scalesim *sidecar = scalesim_open("village", &options);
    if (!sidecar) {
        perror("scalesim_open");
        return 1;
    }
    for (int i = 0; i < 5; i++) {
        char persona[64];
        snprintf(persona, sizeof persona, "You are %s, of a village of five.", villagers[i]);
        scalesim_bind(sidecar, villagers[i], &(scalesim_memory){.text = persona});
    }
    scalesim_step(sidecar, 0);
    for (int i = 0; i < 5; i++) scalesim_activity_for(sidecar, villagers[i], i + 1, NULL);
    for (int now = 1; now <= steps; now++) {
        const char *agent = villagers[(now - 1) % 5];
        scalesim_step(sidecar, now);
        scalesim_started(sidecar, agent, NULL);
        /* Here the LLM is called. */
        scalesim_finished(sidecar, agent, NULL);
        scalesim_activity_for(sidecar, agent, 5, NULL);
    }
    if (scalesim_flush(sidecar, 5))
        printf("said %" PRIu64 " events\n", scalesim_count(sidecar).sent);
    else
        puts("no daemon listens; the village went on without");
    scalesim_close(sidecar);
    return 0;
}
