/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* edt.c - pod bandwidth: packets get the time at which they may leave, and the queue fq keeps
 * them until then. Entry points of tc programs; the arithmetic is in edt.h.
 *
 * The pod is named where its packets enter the node, before anything rewrites their addresses.
 * The name travels in tc_index: forwarding, bridging, NAT and masquerading leave that alone, and
 * nothing in use today reads it. A pod on the host's network has no such place; its packets lead
 * to their socket up to the leaving device, and the socket to its cgroup. */

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#define FROM_PODS false
#include "types.h"
#include "maps.h"
#include "ctx_skb.h"
#include "edt.h"
#include "tell.h"

enum side {
	SIDE_SOURCE = 0,
	SIDE_DESTINATION = 1,
};

/* The limits of one end of a packet; NULL: none. */
static __always_inline struct pod_limits *of_pod(struct __sk_buff *skb, enum side side)
{
	struct addr address = {};
	__u32 offset = ETH_HLEN;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		offset += __builtin_offsetof(struct iphdr, saddr) + side * 4;
		address.word[2] = V4_PREFIX;
		if (!load(skb, offset, &address.word[3], 4))
			return NULL;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		offset += __builtin_offsetof(struct ipv6hdr, saddr) + side * 16;
		if (!load(skb, offset, &address, 16))
			return NULL;
	} else {
		return NULL;
	}
	return pods.lookup(&address);
}

static __always_inline struct limit *limit_of(__u32 number)
{
	struct limit *limit = number ? limits.lookup(&number) : NULL;

	return limit && limit->rate ? limit : NULL;
}

/* The number of the egress limit of a pod on the host's network, whose containers are cgroups below its own. */
static __always_inline __u32 of_socket(struct __sk_buff *skb)
{
	__u32 nobody = 0;
	struct limit *any = limits.lookup(&nobody);

	if (!any || !any->state)
		return 0;
	for (int level = 1; level <= EDT_LEVELS; level++) {
		__u64 id = bpf_skb_ancestor_cgroup_id(skb, level);
		struct addr key = {};
		struct pod_limits *pod;

		if (!id)
			return 0;
		key.word[0] = bpf_htonl((__u32)EDT_CGROUP << 24);
		key.word[2] = bpf_htonl(id >> 32);
		key.word[3] = bpf_htonl((__u32)id);
		pod = pods.lookup(&key);
		if (pod)
			return pod->egress;
	}
	return 0;
}

static __always_inline void add(__u64 *count, __u64 more)
{
	__sync_fetch_and_add(count, more);
}

/* False: it has to be dropped. */
static __always_inline bool pace(struct __sk_buff *skb, struct limit *limit)
{
	__u32 length = skb->wire_len;
	__u64 now = bpf_ktime_get_ns();
	struct departure go = depart(limit, bpf_get_hash_recalc(skb), length, now, skb->tstamp);

	if (!go.at) {
		add(&limit->dropped, 1);
		add(&limit->dropped_octets, length);
		return false;
	}
	add(&limit->packets, 1);
	add(&limit->octets, length);
	if (go.at > now) {
		add(&limit->delayed, 1);
		add(&limit->delayed_octets, length);
		add(&limit->waited, go.at - now);
	}
	if (go.overtook)
		add(&limit->overtook, 1);
	if (go.mark && bpf_skb_ecn_set_ce(skb))
		add(&limit->marked, 1);
	skb->tstamp = go.at;
	return true;
}

/* The pod's queue is full: the packet is dropped, and told with the number of its limit. */
static __always_inline int too_full(struct __sk_buff *skb, __u32 number)
{
	struct listener *listener = heard_by();
	struct pkt pkt = {};
	struct event *event;

	if (!listener)
		return drop(REASON_BANDWIDTH);
	read_packet(skb, &pkt);
	event = begin_packet(listener, EVENT_DROP, skb, &pkt);
	if (event) {
		event->id = number;
		event->reason = REASON_BANDWIDTH;
		end_event(event);
	}
	return drop(REASON_BANDWIDTH);
}

/* tc ingress of a pod's device. Whatever the pod itself wrote there is gone. */
int edt_name(struct __sk_buff *skb)
{
	struct pod_limits *pod = of_pod(skb, SIDE_SOURCE);
	struct limit *limit = limit_of(pod ? pod->egress : 0);

	skb->tc_index = limit ? pod->egress : 0;
	if (limit)
		add(&limit->named, skb->len);
	return PACKET_NEXT;
}

/* tc egress of a device that leaves the node. */
int edt_out(struct __sk_buff *skb)
{
	__u32 number = skb->tc_index ? skb->tc_index : of_socket(skb);
	struct limit *limit = limit_of(number);

	skb->tc_index = 0;
	if (limit && !pace(skb, limit))
		return too_full(skb, number);
	return PACKET_NEXT;
}

/* tc egress of a pod's device: what the pod receives, and what another pod of this node sent. */
int edt_pod(struct __sk_buff *skb)
{
	struct pod_limits *pod = of_pod(skb, SIDE_DESTINATION);
	struct limit *limit = limit_of(pod ? pod->ingress : 0);
	struct limit *sender;
	__u32 number = 0;

	if (SCOPE_ALL)
		number = skb->tc_index ? skb->tc_index : of_socket(skb);
	sender = limit_of(number);
	skb->tc_index = 0;
	if (sender && !pace(skb, sender))
		return too_full(skb, number);
	if (limit && !pace(skb, limit))
		return too_full(skb, pod->ingress);
	return PACKET_NEXT;
}
