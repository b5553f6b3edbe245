#ifndef UPCALL_E2E_PROGRAM_H
#define UPCALL_E2E_PROGRAM_H

/* What the small C programs of the suites share. */

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static inline void fail(const char* what) {
  perror(what);
  exit(1);
}

/* Seconds of a clock that does not jump. */
static inline double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

#endif
