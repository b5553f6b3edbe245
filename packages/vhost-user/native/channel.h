/*
 * The vhost-user socket: bytes with descriptors beside them.
 *
 * For JavaScript:
 *
 * receive(descriptor, length), send(descriptor, bytes, descriptors): see rights.h; what comes is non-blocking. A message has at
 * most eight descriptors, those of a memory table.
 *
 * drain(descriptor): reads an eventfd down to zero; fine if it is. EINVAL: it is not an eventfd.
 *
 * signal(descriptor): adds one to an eventfd.
 */
#ifndef UPCALL_VHOST_USER_CHANNEL_H
#define UPCALL_VHOST_USER_CHANNEL_H

#include "js.h"

napi_value vu_js_receive(napi_env env, napi_callback_info info);
napi_value vu_js_drain(napi_env env, napi_callback_info info);
napi_value vu_js_signal(napi_env env, napi_callback_info info);

#endif
