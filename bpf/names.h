/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* names.h - the layouts of names: a part of types.h, which includes it. */
#ifndef TIDEGATE_NAMES_H
#define TIDEGATE_NAMES_H

#include "types.h"

/* Names for people, kept beside the ids so that they can be shown with the agent dead. */
enum name_kind {
	NAME_SERVICE = 0, /* "namespace/name/port/protocol/family", by service id */
	NAME_NODE = 1,
	NAME_ZONE = 2,
};

struct name_key {
	__u32 kind; /* enum name_kind */
	__u32 id;
};

struct name {
	__u8 text[256]; /* UTF-8, ends with a zero byte */
};

#endif
