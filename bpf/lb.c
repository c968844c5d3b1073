/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* lb.c - north-south: packets from outside go to a backend, and its answers come back as the
 * service's. `lb_in` and `lb_out` are tc programs of the devices where traffic enters. */

#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/pkt_cls.h>

#include "types.h"
#include "maps.h"

/* tc ingress of a device. */
int lb_in(struct __sk_buff *skb)
{
	return TC_ACT_UNSPEC;
}

/* tc egress of a device. */
int lb_out(struct __sk_buff *skb)
{
	return TC_ACT_UNSPEC;
}
