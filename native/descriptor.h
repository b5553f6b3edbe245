/*
 * A file descriptor owned by one JavaScript object, and its readiness.
 *
 * JavaScript never holds a bare descriptor number: it holds an opaque object, so a stale one is an EBADF instead of the
 * file of another owner. Three things can end it, in any order: close(), the garbage collector, the end of the environment
 * (process exit, worker.terminate()). Whichever comes first closes the descriptor; memory goes when the JavaScript object and
 * libuv's handle have both let go.
 *
 * Everything runs on the environment's own loop (napi_get_uv_event_loop), so worker threads work; there are no globals.
 */
#ifndef UPCALL_NATIVE_DESCRIPTOR_H
#define UPCALL_NATIVE_DESCRIPTOR_H

#include "js.h"

struct up_descriptor;

/* Marks the objects of one addon: a descriptor of another addon (or of another build) is a TypeError. Each addon defines it. */
extern const napi_type_tag up_descriptor_tag;

/* Wraps `fd` and takes it: it is closed if that fails (NULL, exception pending). */
napi_value up_descriptor_new(napi_env env, int fd);

/* The descriptor behind a JavaScript value: NULL with a TypeError for any other value, with EBADF for a closed one. */
struct up_descriptor* up_descriptor_get(napi_env env, napi_value value);

int up_descriptor_fd(const struct up_descriptor* descriptor);

/* Closes it; again is a no-op. */
void up_descriptor_close(struct up_descriptor* descriptor);

/* Lets go of the number without closing it, which from now on belongs to the caller. Not while it is watched. */
int up_descriptor_release(struct up_descriptor* descriptor);

/*
 * For JavaScript:
 *   duplicate(number) → descriptor         of a number that stays its owner's
 *   close(descriptor)                      a closed one is fine
 *   watch(descriptor, events, callback)    events: READABLE | WRITABLE | PRIORITIZED. callback(events) on each readiness until
 *                                          unwatch() or close(). Events 0 means an error condition, read it with SO_ERROR:
 *                                          watching has ended. PRIORITIZED alone brings errors and hang-ups, on a socket that has
 *                                          no urgent data
 *   unwatch(descriptor)
 *   ref(descriptor), unref(descriptor)     whether watching keeps the process alive (it does)
 */
napi_value up_js_duplicate(napi_env env, napi_callback_info info);
napi_value up_js_close(napi_env env, napi_callback_info info);
napi_value up_js_watch(napi_env env, napi_callback_info info);
napi_value up_js_unwatch(napi_env env, napi_callback_info info);
napi_value up_js_ref(napi_env env, napi_callback_info info);
napi_value up_js_unref(napi_env env, napi_callback_info info);

#endif
