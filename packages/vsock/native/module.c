/* The exports of upcall_vsock.node. Their TypeScript types are in src/native/binding.ts. */
#include "adopt.h"
#include "connect.h"
#include "datagram.h"
#include "descriptor.h"
#include "inherit.h"
#include "message.h"
#include "passing.h"
#include "rights.h"
#include "sender.h"
#include "socket.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <uv.h>

/* Counts the changes of src/native/binding.ts, so that a stale build is told from a fitting one. */
#define API_VERSION 4

/* linux/vm_sockets.h; spelled out so that no kernel header is needed. */
#define VSOCK_GET_LOCAL_CID 0x7b9

const napi_type_tag up_descriptor_tag = {0x7bd28fd4c4a64f0f, 0x9a3ce1b6f0d04c52};

/* localCid() → number. Throws open's error where there is no /dev/vsock or no permission for it. */
static napi_value vs_js_local_cid(napi_env env, napi_callback_info info) {
  unsigned int cid = 0;
  (void)info;
  int fd = open("/dev/vsock", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return up_throw_errno(env, errno, "open /dev/vsock");
  int error = ioctl(fd, VSOCK_GET_LOCAL_CID, &cid) ? errno : 0;
  close(fd);
  return error ? up_throw_errno(env, error, "ioctl /dev/vsock") : up_new_number(env, cid);
}

static const struct up_function functions[] = {
    {"socket", up_js_socket},
    {"bind", up_js_bind},
    {"listen", up_js_listen},
    {"accept", up_js_accept},
    {"connect", vs_js_connect},
    {"finishConnect", vs_js_finish_connect},
    {"getsockname", up_js_getsockname},
    {"getpeername", up_js_getpeername},
    {"setsockopt", up_js_setsockopt},
    {"getsockopt", up_js_getsockopt},
    {"placeholder", vs_js_placeholder},
    {"adopt", vs_js_adopt},
    {"inspect", vs_js_inspect},
    {"closeOnExec", vs_js_close_on_exec},
    {"inherit", vs_js_inherit},
    {"sendDatagram", vs_js_send_datagram},
    {"localCid", vs_js_local_cid},
    {"receive", vs_js_receive},
    {"send", up_js_send},
    {"duplicate", up_js_duplicate},
    {"release", vs_js_release},
    {"describe", vs_js_describe},
    {"unblock", vs_js_unblock},
    {"read", vs_js_read},
    {"write", vs_js_write},
    {"shutdown", vs_js_shutdown},
    {"typedSocket", vs_js_typed_socket},
    {"messageLength", vs_js_message_length},
    {"receiveMessage", vs_js_receive_message},
    {"sendMessage", vs_js_send_message},
    {"hungUp", vs_js_hung_up},
    {"sendWaiting", vs_js_send_waiting},
    {"cut", vs_js_cut},
    {"watch", up_js_watch},
    {"unwatch", up_js_unwatch},
    {"ref", up_js_ref},
    {"unref", up_js_unref},
    {"close", up_js_close},
};

static const struct up_number numbers[] = {
    {"READABLE", UV_READABLE},
    {"WRITABLE", UV_WRITABLE},
    {"AF_UNIX", AF_UNIX},
    {"AF_INET", AF_INET},
    {"AF_VSOCK", AF_VSOCK},
    {"SOL_SOCKET", SOL_SOCKET},
    {"SO_ERROR", SO_ERROR},
    {"SO_SNDBUF", SO_SNDBUF},
    {"API_VERSION", API_VERSION},
    {"SO_TIMESTAMP", SO_TIMESTAMP},
    {"SOCK_SEQPACKET", SOCK_SEQPACKET},
    {"SOCK_DGRAM", SOCK_DGRAM},
};

NAPI_MODULE_INIT() {
  if (!up_export(env, exports, functions, UP_COUNT(functions))) return NULL;
  if (!up_export_numbers(env, exports, numbers, UP_COUNT(numbers))) return NULL;
  return exports;
}
