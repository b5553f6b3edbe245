/*
 * Descriptors of any kind: how they come from another process, and how their bytes are read and written where Node has no stream
 * for them.
 *
 * For JavaScript:
 *
 * receive(descriptor, length), send(descriptor, bytes, descriptors): see rights.h. What comes blocks as its sender left it.
 *
 * release(descriptor) → number, which is the caller's to close from then on.
 *
 * describe(descriptor) → { mode, device, flags, terminal }: of fstat (mode, rdev), fcntl (F_GETFL) and isatty.
 *
 * unblock(descriptor): sets O_NONBLOCK, which all its holders share. So a terminal is opened once more where that is possible.
 *
 * read(descriptor, bytes) → number | undefined: 0 at the end, undefined: nothing there yet.
 *
 * write(descriptor, bytes) → number | undefined: undefined: wait until it is writable.
 *
 * shutdown(descriptor): ends the writing direction of a socket.
 */
#ifndef UPCALL_VSOCK_PASSING_H
#define UPCALL_VSOCK_PASSING_H

#include "js.h"

napi_value vs_js_receive(napi_env env, napi_callback_info info);
napi_value vs_js_release(napi_env env, napi_callback_info info);
napi_value vs_js_describe(napi_env env, napi_callback_info info);
napi_value vs_js_unblock(napi_env env, napi_callback_info info);
napi_value vs_js_read(napi_env env, napi_callback_info info);
napi_value vs_js_write(napi_env env, napi_callback_info info);
napi_value vs_js_shutdown(napi_env env, napi_callback_info info);

#endif
