/* Descriptors that travel beside the bytes of a Unix socket (SCM_RIGHTS). The addons share this one implementation. */
#ifndef UPCALL_RIGHTS_H
#define UPCALL_RIGHTS_H

#include "js.h"

#include <stdbool.h>

/* receive(descriptor, length) → { bytes, descriptors }, or undefined if nothing is there yet; no bytes at the end of the stream.
 * What comes is close-on-exec, and with `nonblocking` is made so, for all its holders. EMSGSIZE: more than eight
 * descriptors came, or the process had no room for all; those that came are closed. */
napi_value up_receive(napi_env env, napi_callback_info info, bool nonblocking);

/* send(descriptor, bytes, descriptors) → how many bytes went, with all the descriptors; undefined if none did. */
napi_value up_js_send(napi_env env, napi_callback_info info);

#endif
