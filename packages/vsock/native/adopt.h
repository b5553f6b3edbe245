/*
 * How a connected socket of any family gets Node's own data path.
 *
 * Node refuses to build a net.Socket on a descriptor whose family it does not know. So it is given one end of an AF_UNIX pair
 * whose other end is gone, and before the event loop turns (nothing has been registered with epoll yet) dup3 puts the real
 * socket in its place, under the same number. From then on no native code is involved.
 *
 * For JavaScript:
 *   placeholder() → descriptor                                 the AF_UNIX end. Two spare numbers are needed for a moment
 *   adopt(connection, placeholder, create) → create's result   create(fd) builds a net.Socket on the number, which belongs to the
 *                                                              socket as soon as create returns; both descriptors are then spent.
 *                                                              If create throws it must not have kept the number
 */
#ifndef UPCALL_VSOCK_ADOPT_H
#define UPCALL_VSOCK_ADOPT_H

#include "js.h"

napi_value vs_js_placeholder(napi_env env, napi_callback_info info);
napi_value vs_js_adopt(napi_env env, napi_callback_info info);

#endif
