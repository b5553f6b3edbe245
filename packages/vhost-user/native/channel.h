/*
 * The vhost-user socket: bytes with descriptors beside them.
 *
 * For JavaScript:
 *
 * receive(descriptor, length) → { bytes, descriptors } | undefined: up to `length` bytes; none at all is the end of the stream;
 * undefined: nothing there yet. Descriptors are close-on-exec and non-blocking. More of them than any message may have is an
 * error (EMSGSIZE), and all are closed.
 *
 * send(descriptor, bytes, descriptors) → number | undefined: how many bytes went; undefined: none, wait until writable.
 *
 * drain(descriptor): reads an eventfd down to zero; fine if it is. EINVAL: it is not an eventfd.
 *
 * signal(descriptor): adds one to an eventfd.
 */
#ifndef UPCALL_VHOST_USER_CHANNEL_H
#define UPCALL_VHOST_USER_CHANNEL_H

#include "js.h"

napi_value vu_js_receive(napi_env env, napi_callback_info info);
napi_value vu_js_send(napi_env env, napi_callback_info info);
napi_value vu_js_drain(napi_env env, napi_callback_info info);
napi_value vu_js_signal(napi_env env, napi_callback_info info);

#endif
