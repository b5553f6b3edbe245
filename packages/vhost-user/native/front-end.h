/*
 * What a front end (a VMM) needs; of a back end's business only connect is, which finds out whether a socket file is in use.
 *
 * In the published addon all the same: its exercise plays the front end, so what is run before publishing, on each architecture,
 * is the very file that is published. Nothing here gives a program more than Node and a shell give it.
 *
 * For JavaScript:
 *   connect(sockaddr) → descriptor       an AF_UNIX stream; answers at once
 *   memfd(size) → descriptor             memory of `size` bytes to be shared
 *   eventfd() → descriptor
 */
#ifndef UPCALL_VHOST_USER_FRONT_END_H
#define UPCALL_VHOST_USER_FRONT_END_H

#include "js.h"

napi_value vu_js_connect(napi_env env, napi_callback_info info);
napi_value vu_js_memfd(napi_env env, napi_callback_info info);
napi_value vu_js_eventfd(napi_env env, napi_callback_info info);

#endif
