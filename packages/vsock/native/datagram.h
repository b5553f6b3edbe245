/*
 * For JavaScript:
 *   sendDatagram(sockaddr, bytes)     one AF_UNIX datagram, from a socket without a name; EAGAIN if the receiver's queue is full
 */
#ifndef UPCALL_VSOCK_DATAGRAM_H
#define UPCALL_VSOCK_DATAGRAM_H

#include "js.h"

napi_value vs_js_send_datagram(napi_env env, napi_callback_info info);

#endif
