/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* checksum.h - sums of the Internet checksum (RFC 1071), and what becomes of one by a difference
 * (RFC 1624). Pure: never touches a packet. */
#ifndef TIDEGATE_CHECKSUM_H
#define TIDEGATE_CHECKSUM_H

#include "types.h"

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* A checksum after what it covers has changed by `change`, of bpf_csum_diff. */
static __always_inline __u16 changed(__u16 sum, __u64 change)
{
	return ~fold(change + (__u16)~sum);
}

#endif
