/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* kconfig.h - stands in for the kernel's own headers, which nodes rarely have: bcc includes it
 * first in every program, and network programs need no more of the kernel than its UAPI. */
#ifndef TIDEGATE_KCONFIG_H
#define TIDEGATE_KCONFIG_H

#define CONFIG_BPF_SYSCALL 1

#include <linux/types.h>

/* linux/stddef.h defines this with `inline` alone; bcc's helpers need it defined once, their way. */
#include <linux/stddef.h>
#undef __always_inline
#define __always_inline inline __attribute__((always_inline))

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s8 s8;
typedef __s16 s16;
typedef __s32 s32;
typedef __s64 s64;
typedef _Bool bool;
typedef unsigned long size_t;
typedef unsigned long uintptr_t;

#define true 1
#define false 0
#ifndef NULL
#define NULL ((void *)0)
#endif

#endif
