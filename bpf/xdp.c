/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* xdp.c - north-south, before the stack: the text of lb.c over XDP. What it cannot finish it
 * hands up unchanged, and tc has it next. */

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include "types.h"
#include "maps.h"
#include "ctx_xdp.h"
#include "packet.h"
#include "rewrite_xdp.h"
#include "balance.h"

/* XDP of a device. */
int lb_xdp(struct xdp_md *ctx)
{
	return receive(ctx);
}
