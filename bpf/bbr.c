/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* bbr.c - TCP connections of pods use BBR, where the operator asks for it: a program of the cgroup
 * that sees each of them begin. Pods are who is in another network namespace than the node.
 * Reads: node. */

#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/tcp.h>

#include "types.h"
#include "maps.h"
#include "reason.h"

int pod_bbr(struct bpf_sock_ops *socket)
{
	char name[] = "bbr";
	__u32 only = 0;
	struct node *here = node.lookup(&only);

	if (socket->op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB &&
	    socket->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		return SOCK_PROCEED;
	if (here && bpf_get_netns_cookie(socket) != here->netns)
		bpf_setsockopt(socket, IPPROTO_TCP, TCP_CONGESTION, name, sizeof(name));
	return SOCK_PROCEED;
}
