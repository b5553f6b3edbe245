/*
 * Descriptors that another program opened and this process inherited: the only place where a bare number comes in.
 *
 * For JavaScript:
 *   inspect(fd) → { family, type, listening, local: sockaddr, peer: sockaddr | undefined }      EBADF, ENOTSOCK if it is not a
 * socket closeOnExec(fd)                                the programs that this process starts do not get it inherit(fd) →
 * descriptor                       takes the socket over: close-on-exec, non-blocking
 */
#ifndef UPCALL_VSOCK_INHERIT_H
#define UPCALL_VSOCK_INHERIT_H

#include "js.h"

napi_value vs_js_inspect(napi_env env, napi_callback_info info);
napi_value vs_js_close_on_exec(napi_env env, napi_callback_info info);
napi_value vs_js_inherit(napi_env env, napi_callback_info info);

#endif
