#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "scalesim.h"

enum { KEY_BYTES = 32, KEY_CHARACTERS = 2 * KEY_BYTES * 5 / 8 };
static const char *const AROUND = " \t\r\n'\"";

/* The value of `line`, where it says what `name` is: between its = and its end, without what stands around it. */
static char *value_in(char *line, const char *name) {
    line += strspn(line, AROUND);
    if (strncmp(line, name, strlen(name))) return NULL;
    line = strchr(line, '=');
    if (!line) return NULL;
    line += 1 + strspn(line + 1, AROUND);
    size_t length = strlen(line);
    while (length && strchr(AROUND, line[length - 1])) length--;
    line[length] = 0;
    return line;
}

static bool take_key(char into[41], const char *found) {
    uint8_t bytes[KEY_BYTES];
    if (!found || strlen(found) != KEY_CHARACTERS || !zmq_z85_decode(bytes, found)) return false;
    memcpy(into, found, KEY_CHARACTERS + 1);
    return true;
}

/* Read a file's public key and, where that is wanted, its secret one. */
static bool read_keys(const char *path, char public_key[41], char *secret_key) {
    FILE *file = fopen(path, "r");
    if (!file) return false;
    bool has_public = false, has_secret = !secret_key;
    char *line = NULL, *found;
    size_t room = 0;
    while (getline(&line, &room, file) > 0) {
        if ((found = value_in(line, "public-key"))) has_public = take_key(public_key, found);
        if (secret_key && (found = value_in(line, "secret-key"))) has_secret = take_key(secret_key, found);
    }
    bool read = !ferror(file);
    free(line);
    fclose(file);
    if (read && !(has_public && has_secret)) errno = EINVAL;
    return read && has_public && has_secret;
}

bool scalesim_load_curve(scalesim_curve *keys, const char *own, const char *server) {
    *keys = (scalesim_curve){0};
    return read_keys(own, keys->public_key, keys->secret_key) && read_keys(server, keys->server_key, NULL);
}
