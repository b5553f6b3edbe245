/*
 * For JavaScript:
 *   connect(descriptor, sockaddr) → boolean      true: connected; false: in progress, watch for WRITABLE and call finishConnect()
 *   finishConnect(descriptor)                    throws what became of it
 */
#ifndef UPCALL_VSOCK_CONNECT_H
#define UPCALL_VSOCK_CONNECT_H

#include "js.h"

napi_value vs_js_connect(napi_env env, napi_callback_info info);
napi_value vs_js_finish_connect(napi_env env, napi_callback_info info);

#endif
