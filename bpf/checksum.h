/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* checksum.h - sums of the Internet checksum (RFC 1071), and what becomes of one by a difference
 * (RFC 1624). Pure: never touches a packet. */
#ifndef TIDEGATE_CHECKSUM_H
#define TIDEGATE_CHECKSUM_H

#include "types.h"

/* bcc's own declaration takes the sum for an int. Kernels before 6.13 do not fold it to 16 bits, so
 * half of all sums would look like errors (include/uapi/linux/bpf.h says s64). */
static __s64 (*csum_diff)(const __be32 *from, __u32 from_size, const __be32 *to, __u32 to_size,
			  __u32 seed) = (void *)BPF_FUNC_csum_diff;

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* A checksum after what it covers has changed by `change`, of csum_diff. */
static __always_inline __u16 changed(__u16 sum, __u64 change)
{
	return ~fold(change + (__u16)~sum);
}

#endif
