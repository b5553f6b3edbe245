/*
 * What a front end (a VMM) needs and a back end does not: for tests that play one, and for nobody else.
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
