/* What the tests share: a check that says where it failed, and ends the program. Compiles as C11 and as C++17. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <whimbrel.h>

static int checks_passed = 0;

static inline void check_failed(const char *file, int line, const char *what)
{
    const whimbrel_error *error = whimbrel_last_error();
    fprintf(stderr, "%s:%d: not so: %s\n", file, line, what);
    if (error != NULL)
        fprintf(stderr, "  the last error: %s\n", whimbrel_error_message(error));
    exit(1);
}

#define CHECK(what) ((what) ? (void)checks_passed++ : check_failed(__FILE__, __LINE__, #what))
#define OK(call) CHECK((call) == WHIMBREL_STATUS_OK)
/* A call that fails with this status, whose error is complete and says `text`. */
#define FAILS(status, text, call) (CHECK((call) == (status)), check_error((status), (text), __FILE__, __LINE__))

static inline void check_error(int32_t status, const char *text, const char *file, int line)
{
    const whimbrel_error *error = whimbrel_last_error();
    if (error == NULL || (int32_t)whimbrel_error_status(error) != status || strlen(whimbrel_error_kind(error)) == 0 ||
        strlen(whimbrel_error_operation(error)) == 0 || strstr(whimbrel_error_message(error), text) == NULL)
        check_failed(file, line, text);
    checks_passed++;
}

#endif
