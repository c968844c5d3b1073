/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* edt_arithmetic.c - lets a test give `depart` its arguments, the clock among them. Both ways they
 * lie behind the Ethernet header. */

#include <linux/bpf.h>
#include <linux/if_ether.h>

#include "types.h"
#include "maps.h"
#include "edt.h"

struct departing {
	__u64 now;
	__u64 asked;
	__u32 hash;
	__u32 length;
	__u64 mark;
	__u64 overtook;
};

int edt_arithmetic(struct __sk_buff *skb)
{
	struct departing question;
	struct departure answer;
	struct limit *limit;
	__u32 number = 1;

	limit = limits.lookup(&number);
	if (!limit || bpf_skb_load_bytes(skb, ETH_HLEN, &question, sizeof(question)))
		return 2;
	answer = depart(limit, question.hash, question.length, question.now, question.asked);
	question.now = answer.at;
	question.mark = answer.mark;
	question.overtook = answer.overtook;
	bpf_skb_store_bytes(skb, ETH_HLEN, &question, sizeof(question), 0);
	return 0;
}
