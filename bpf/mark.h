/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* mark.h - the other way to a backend's node: as a packet from this node to the backend, which
 * says in an IPv4 option or an IPv6 destination option whom it is from and what that one asked.
 * The client's port stays where it was; the backend's takes the service's place. Numbers are those
 * for experiments (RFC 4727); a node that does not know the IPv6 one drops the packet. */
#ifndef TIDEGATE_MARK_H
#define TIDEGATE_MARK_H

#include "checksum.h"
#include "packet.h"

#define MARK_V4 0x9e /* copied to fragments, control (RFC 791, 3.1) */
#define MARK_V6 0x5e /* discard if not known (RFC 8200, 4.2) */
#define DESTINATION_OPTIONS 60

struct mark_v4 {
	__u8 kind;
	__u8 octets;
	__be16 port; /* the frontend's */
	__be32 client;
	__be32 frontend;
};

/* The whole extension header. */
struct mark_v6 {
	__u8 next;
	__u8 units; /* of 8 octets, after the first */
	__u8 kind;
	__u8 octets; /* behind itself */
	__be16 port; /* the frontend's */
	__u16 pad;
	struct addr client;
	struct addr frontend;
};

struct marked_v4 {
	struct iphdr ip;
	struct mark_v4 mark;
};

struct marked_v6 {
	struct ipv6hdr ip;
	struct mark_v6 mark;
};

static __always_inline __u32 mark_size(bool v4)
{
	return v4 ? sizeof(struct mark_v4) : sizeof(struct mark_v6);
}

/* The header of a packet becomes that of the marked one. `asked`: the ends as the client has them;
 * in the header they are others already. */
static __always_inline void mark_v4(struct marked_v4 *head, const struct ends *asked)
{
	struct iphdr *ip = &head->ip;

	ip->ihl = sizeof(*head) / 4;
	ip->tot_len = bpf_htons(bpf_ntohs(ip->tot_len) + sizeof(head->mark));
	ip->frag_off |= DONT_FRAGMENT;
	ip->check = 0;
	head->mark.kind = MARK_V4;
	head->mark.octets = sizeof(head->mark);
	head->mark.port = asked->destination_port;
	head->mark.client = asked->source.word[3];
	head->mark.frontend = asked->destination.word[3];
	ip->check = ~fold((__u32)csum_diff(NULL, 0, (__be32 *)head, sizeof(*head), 0));
}

static __always_inline void mark_v6(struct marked_v6 *head, const struct ends *asked)
{
	head->mark.next = head->ip.nexthdr;
	head->mark.units = sizeof(head->mark) / 8 - 1;
	head->mark.kind = MARK_V6;
	head->mark.octets = sizeof(head->mark) - 4;
	head->mark.port = asked->destination_port;
	head->mark.pad = 0;
	head->mark.client = asked->source;
	head->mark.frontend = asked->destination;
	head->ip.nexthdr = DESTINATION_OPTIONS;
	head->ip.payload_len = bpf_htons(bpf_ntohs(head->ip.payload_len) + sizeof(head->mark));
}

/* Has the packet whose IP header begins at `at` a mark, from whomever? */
static __always_inline bool has_mark(struct packet_ctx *ctx, __u32 at, bool v4)
{
	struct mark_v6 mark;
	__u8 first, next;
	__be16 option;

	if (v4)
		return load(ctx, at, &first, 1) && first == 0x48 &&
		       load(ctx, at + sizeof(struct iphdr), &option, 2) &&
		       option == bpf_htons(MARK_V4 << 8 | sizeof(struct mark_v4));
	return load(ctx, at + 6, &next, 1) && next == DESTINATION_OPTIONS &&
	       load(ctx, at + sizeof(struct ipv6hdr), &mark, 4) &&
	       mark.units == sizeof(mark) / 8 - 1 && mark.kind == MARK_V6 &&
	       mark.octets == sizeof(mark) - 4;
}

/* The ends as the client had them, from a packet that has a mark. The client's port, which is
 * not in it, stays as it is in `asked`. */
static __always_inline bool read_mark(struct packet_ctx *ctx, __u32 at, bool v4, struct ends *asked)
{
	struct mark_v4 mark;

	if (!v4) {
		at += sizeof(struct ipv6hdr);
		return load(ctx, at + 4, &asked->destination_port, 2) &&
		       load(ctx, at + 8, &asked->source, 2 * sizeof(struct addr));
	}
	if (!load(ctx, at + sizeof(struct iphdr), &mark, sizeof(mark)))
		return false;
	asked->destination_port = mark.port;
	asked->source.word[3] = mark.client;
	asked->destination.word[3] = mark.frontend;
	return true;
}

#endif
