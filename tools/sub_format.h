/* SPDX-License-Identifier: Apache-2.0 */
/* sub_format.h: how `shmq sub` writes a message: body and newline, NUL, raw, JSON, or a template. */
#ifndef SHMQ_TOOLS_SUB_FORMAT_H
#define SHMQ_TOOLS_SUB_FORMAT_H

#include "tools/cli.h"
#include "tools/outbuf.h"

enum format_kind { FORMAT_LINE, FORMAT_NUL, FORMAT_RAW, FORMAT_JSON, FORMAT_TEMPLATE };

/* What the templates know, for the help. */
#define FORMAT_HELP \
    "%b body, %k key, %h headers (NAME=VALUE, with commas), %p partition, %o offset, " \
    "%t timestamp (ns since 1970), %T timestamp (ISO 8601, UTC), %% percent; \\n \\t \\r \\0 \\\\"

#define FORMAT_WORDS "%%b %%k %%h %%p %%o %%t %%T %%%% \\n \\t \\r \\0 \\\\"

/* The first mistake in the template, NULL if there is none. */
const char *format_check_template(const char *text);

void format_message(struct outbuf *out, enum format_kind kind, const char *text,
                    const struct shmq_message *message);

#endif
