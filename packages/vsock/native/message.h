/*
 * Sockets that keep messages apart: SOCK_SEQPACKET, and SOCK_DGRAM with its addresses.
 *
 * For JavaScript:
 *
 * typedSocket(family, type) → descriptor, non-blocking and close-on-exec
 *
 * messageLength(descriptor) → number | undefined: of the next message, which stays; 0 also at the end; undefined: nothing there
 * yet. AF_VSOCK answers this from Linux 6.7 on.
 *
 * receiveMessage(descriptor, limit) → { bytes, length, eor, end, from? } | undefined: one message, cut to `limit` bytes. `length`
 * is what it had. With SO_TIMESTAMP an empty message is told from the end.
 *
 * sendMessage(descriptor, bytes, eor, sockaddr?) → boolean: one whole message; false: wait until it is writable.
 *
 * hungUp(descriptor) → boolean: the peer has closed, where it may as well have ended its direction.
 */
#ifndef UPCALL_VSOCK_MESSAGE_H
#define UPCALL_VSOCK_MESSAGE_H

#include "js.h"

napi_value vs_js_typed_socket(napi_env env, napi_callback_info info);
napi_value vs_js_message_length(napi_env env, napi_callback_info info);
napi_value vs_js_receive_message(napi_env env, napi_callback_info info);
napi_value vs_js_send_message(napi_env env, napi_callback_info info);
napi_value vs_js_hung_up(napi_env env, napi_callback_info info);

#endif
