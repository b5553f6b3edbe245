/*
 * A send that may wait, on a thread of its own.
 *
 * A non-blocking send of a long message over AF_VSOCK loses the message's bounds: where the peer's buffer has room for a part of
 * it, Linux sends that part, says EAGAIN, and does not tell how much has left. What is sent next becomes the rest of that
 * message. A blocking send waits for the room.
 *
 * For JavaScript:
 *
 * sendWaiting(descriptor, bytes, eor, callback)   one whole message, copied. callback(errno): 0 when the kernel has all of it;
 * else the positive number. Makes the descriptor block: use only the calls of message.h.
 *
 * cut(descriptor)                                shuts both directions down, which ends a send that waits.
 */
#ifndef UPCALL_VSOCK_SENDER_H
#define UPCALL_VSOCK_SENDER_H

#include "js.h"

napi_value vs_js_send_waiting(napi_env env, napi_callback_info info);
napi_value vs_js_cut(napi_env env, napi_callback_info info);

#endif
