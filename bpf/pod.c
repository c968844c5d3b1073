/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* pod.c - east-west, packet by packet, for clients that no socket hook sees: the text of lb.c for
 * the node's end of a pod's device. What a socket hook translated carries no service's address,
 * and passes. The answers are lb_out's. */

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#define FROM_PODS true
#include "types.h"
#include "maps.h"
#include "ctx_skb.h"
#include "packet.h"
#include "rewrite.h"
#include "balance.h"
#include "unusual.h"

/* tc ingress of a pod's device: what the pod sends. */
int pod_in(struct __sk_buff *ctx)
{
	return receive(ctx);
}
