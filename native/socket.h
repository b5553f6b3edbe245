/*
 * Stream sockets of any family, addressed by raw sockaddr bytes: the kernel's layout goes through untouched, so that the same
 * code serves AF_VSOCK in a guest and AF_UNIX or TCP in a test.
 *
 * For JavaScript (every socket is non-blocking and close-on-exec):
 *   socket(family) → descriptor
 *   bind(descriptor, sockaddr)
 *   listen(descriptor, backlog)
 *   accept(descriptor) → { descriptor, peer: sockaddr } | undefined       undefined: no connection waits
 *   getsockname(descriptor) → sockaddr, getpeername(descriptor) → sockaddr
 *   setsockopt(descriptor, level, option, bytes), getsockopt(descriptor, level, option, length) → bytes
 */
#ifndef UPCALL_NATIVE_SOCKET_H
#define UPCALL_NATIVE_SOCKET_H

#include "js.h"

#include <sys/socket.h>

struct up_sockaddr {
  struct sockaddr_storage bytes;
  socklen_t length;
};

/* Reads a sockaddr argument: at least a family, at most what the kernel takes. */
bool up_sockaddr(napi_env env, napi_value value, struct up_sockaddr* out);

napi_value up_js_socket(napi_env env, napi_callback_info info);
napi_value up_js_bind(napi_env env, napi_callback_info info);
napi_value up_js_listen(napi_env env, napi_callback_info info);
napi_value up_js_accept(napi_env env, napi_callback_info info);
napi_value up_js_getsockname(napi_env env, napi_callback_info info);
napi_value up_js_getpeername(napi_env env, napi_callback_info info);
napi_value up_js_setsockopt(napi_env env, napi_callback_info info);
napi_value up_js_getsockopt(napi_env env, napi_callback_info info);

#endif
