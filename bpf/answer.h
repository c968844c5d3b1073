/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* answer.h - tells the sender that its packet ended here: by a TCP RST (RFC 9293, 3.10.7.1) or an
 * ICMP error (RFC 792, RFC 4443), from the address that it had sent to, which it can reach by
 * its own account. The packet itself becomes the answer. Reads and writes: allowances. */
#ifndef TIDEGATE_ANSWER_H
#define TIDEGATE_ANSWER_H

#include "balance.h"
#include "checksum.h"
#include "odd.h"

#define ANSWER_HOPS 64
#define QUOTE_V4 548  /* octets of the packet: with both headers 576 (RFC 1812, 4.3.2.3) */
#define QUOTE_V6 1232 /* with both headers 1280 (RFC 4443, 2.4) */

struct tcp_header {
	__be16 source_port;
	__be16 destination_port;
	__be32 sequence;
	__be32 acknowledged;
	__u8 offset; /* high half: words of the header */
	__u8 flags;  /* enum tcp_flag */
	__be16 window;
	__u16 checksum;
	__be16 urgent;
};

struct icmp_header {
	__u8 type;
	__u8 code;
	__u16 checksum;
	__be32 word;
};

/* Refusals, after which nothing of the packet's kind would be taken either. */
static __always_inline bool is_refusal(__u32 reason)
{
	return reason == REASON_NO_BACKEND || reason == REASON_NO_SERVICE_PORT;
}

/* The whole of what RFC 1122, 3.2.2 and RFC 4443, 2.4 (e) forbid to answer, but for what never
 * comes here: link-layer broadcasts, and destinations that are no single host. */
static __always_inline bool may_answer(const struct pkt *pkt, const struct odd *odd, __u32 reason)
{
	const struct addr *source = &pkt->ends.source;
	__u8 first;

	if (is_icmp_error(pkt, odd) || odd->part == PART_LATER)
		return false;
	if (is_refusal(reason) && pkt->tcp & TCP_RST)
		return false;
	if (!pkt->v4) {
		first = bpf_ntohl(source->word[0]) >> 24;
		return first != 0xff &&
		       (source->word[0] | source->word[1] | source->word[2] | source->word[3]);
	}
	/* Neither this network, nor loopback, nor multicast and beyond (RFC 6890). */
	first = bpf_ntohl(source->word[3]) >> 24;
	return first != 0 && first != 127 && first < 224;
}

/* A token bucket in one word: the time at which the next answer would be just in time. */
static __always_inline bool is_allowed(void)
{
	__u64 each = NSEC_PER_SEC / ANSWERS_PER_SECOND;
	__u64 now = bpf_ktime_get_ns();
	__u32 zero = 0;
	struct allowance *allowance = allowances.lookup(&zero);

	if (!allowance || allowance->next > now + ANSWERS_AT_ONCE * each)
		return false;
	allowance->next = (allowance->next > now ? allowance->next : now) + each;
	return true;
}

/* Was the checksum at `at` left to the device that sends the packet? Then only the sum of the
 * pseudo header stands there, and the helper, told of a change in what the device is still to
 * sum up, leaves it alone. Nothing is changed in the end. */
static __always_inline bool is_unfinished(struct __sk_buff *ctx, __u32 at, __u16 *sum)
{
	__u16 after = 0;

	if (!load(ctx, at, sum, 2) || bpf_l4_csum_replace(ctx, at, 0, 1, 0))
		return false;
	if (!load(ctx, at, &after, 2) || after == *sum)
		return true;
	store(ctx, at, sum, 2);
	return false;
}

/* Sum of `octets` from `at` on: pieces of 32, then what is left, by the bits of its length. */
static __always_inline __u64 sum_of(struct __sk_buff *ctx, __u32 at, __u32 octets)
{
	__u32 end = at + octets;
	__u32 piece[8];
	__s64 sum = 0;

	for (int i = 0; i < QUOTE_V6 / 32 && at + 32 <= end; i++, at += 32) {
		/* Else the compiler counts the pieces before, in a number that verifiers before
		 * 6.4 take for any: they would go round for ever. */
		asm volatile("" : "+r"(i));
		load(ctx, at, piece, 32);
		sum = csum_diff(NULL, 0, piece, 32, sum);
	}
	for (__u32 size = 16; size; size /= 2) {
		piece[0] = piece[1] = piece[2] = piece[3] = 0;
		if (!(octets & size))
			continue;
		load(ctx, at, piece, size);
		sum = csum_diff(NULL, 0, piece, 16, sum);
		at += size;
	}
	return (__u32)sum;
}

/* Sum of the pseudo header: both addresses, length and protocol. */
static __always_inline __u64 pseudo_sum(const struct ends *to, __u16 octets, __u8 protocol)
{
	__s64 sum = csum_diff(NULL, 0, (__be32 *)&to->source, 32, 0);

	return (__u32)sum + (__u64)bpf_htons(octets) + bpf_htons(protocol);
}

/* The IP header of an answer; `octets` behind it. */
static __always_inline bool write_ip(struct __sk_buff *ctx, bool v4, const struct ends *to,
				     __u16 octets, __u8 protocol)
{
	if (v4) {
		struct iphdr ip = {};

		ip.version = 4;
		ip.ihl = 5;
		ip.tot_len = bpf_htons(sizeof(ip) + octets);
		ip.frag_off = bpf_htons(0x4000); /* not to be fragmented, so no id (RFC 6864) */
		ip.ttl = ANSWER_HOPS;
		ip.protocol = protocol;
		ip.saddr = to->source.word[3];
		ip.daddr = to->destination.word[3];
		ip.check = ~fold((__u32)csum_diff(NULL, 0, (__be32 *)&ip, sizeof(ip), 0));
		return store(ctx, ETH_HLEN, &ip, sizeof(ip));
	} else {
		struct ipv6hdr ip = {};

		ip.version = 6;
		ip.payload_len = bpf_htons(octets);
		ip.nexthdr = protocol;
		ip.hop_limit = ANSWER_HOPS;
		__builtin_memcpy(&ip.saddr, &to->source, sizeof(ip.saddr));
		__builtin_memcpy(&ip.daddr, &to->destination, sizeof(ip.daddr));
		return store(ctx, ETH_HLEN, &ip, sizeof(ip));
	}
}

/* Right behind the IP header, where an answer has it, too? */
static __always_inline bool is_simple(const struct pkt *pkt)
{
	return pkt->l4 == ETH_HLEN + (pkt->v4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr));
}

/* The packet becomes the RST of it. False: it may be half done. */
static __always_inline bool make_reset(struct __sk_buff *ctx, const struct pkt *pkt,
				       const struct ends *to)
{
	struct tcp_header tcp, reset = {};
	__u32 octets = pkt->octets - (pkt->l4 - ETH_HLEN);
	__u16 sum = 0;
	bool unfinished;
	__u64 pseudo;

	if (!load(ctx, pkt->l4, &tcp, sizeof(tcp)))
		return false;
	unfinished = is_unfinished(ctx, pkt->l4 + 16, &sum);
	if (bpf_skb_change_tail(ctx, pkt->l4 + sizeof(reset), 0))
		return false;
	reset.source_port = tcp.destination_port;
	reset.destination_port = tcp.source_port;
	reset.offset = sizeof(reset) / 4 << 4;
	reset.flags = TCP_RST;
	if (tcp.flags & TCP_ACK) {
		reset.sequence = tcp.acknowledged;
	} else {
		reset.flags |= TCP_ACK;
		octets -= (tcp.offset >> 4) * 4;
		octets += !!(tcp.flags & TCP_SYN) + !!(tcp.flags & TCP_FIN);
		reset.acknowledged = bpf_htonl(bpf_ntohl(tcp.sequence) + octets);
	}
	pseudo = pseudo_sum(to, sizeof(reset), IPPROTO_TCP);
	sum = fold((__u32)csum_diff(NULL, 0, (__be32 *)&reset, sizeof(reset), 0) + pseudo);
	reset.checksum = unfinished ? fold(pseudo) : ~sum;
	return store(ctx, pkt->l4, &reset, sizeof(reset)) &&
	       write_ip(ctx, pkt->v4, to, sizeof(reset), IPPROTO_TCP);
}

/* What the sum over the quoted packet will be when it gets to its reader. If a device is still
 * to finish the quoted checksum, then all from L4 on will sum up to what makes it whole. */
static __always_inline __u64 quote_sum(struct __sk_buff *ctx, const struct pkt *pkt, __u32 quote)
{
	bool udp = pkt->protocol == IPPROTO_UDP;
	__u16 pseudo;

	if (pkt->l4 && is_unfinished(ctx, pkt->l4 + (udp ? 6 : 16), &pseudo))
		return sum_of(ctx, ETH_HLEN, pkt->l4 - ETH_HLEN) + (__u16)~pseudo;
	return sum_of(ctx, ETH_HLEN, quote);
}

/* The packet becomes an ICMP error about it. False: it may be half done. */
static __always_inline bool make_error(struct __sk_buff *ctx, const struct pkt *pkt,
				       const struct ends *to, struct icmp_header *icmp)
{
	__u32 most = pkt->v4 ? QUOTE_V4 : QUOTE_V6;
	__u32 quote = pkt->octets < most ? pkt->octets : most;
	__u32 head = pkt->v4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	__u64 sum = quote_sum(ctx, pkt, quote);

	if (bpf_skb_change_tail(ctx, ETH_HLEN + quote, 0) ||
	    bpf_skb_adjust_room(ctx, head + sizeof(*icmp), BPF_ADJ_ROOM_MAC, 0))
		return false;
	sum += (__u32)csum_diff(NULL, 0, (__be32 *)icmp, sizeof(*icmp), 0);
	if (!pkt->v4)
		sum += pseudo_sum(to, sizeof(*icmp) + quote, PROTO_ICMP6);
	icmp->checksum = ~fold(sum);
	return store(ctx, ETH_HLEN + head, icmp, sizeof(*icmp)) &&
	       write_ip(ctx, pkt->v4, to, sizeof(*icmp) + quote,
			pkt->v4 ? PROTO_ICMP : PROTO_ICMP6);
}

/* The words of the error: type and code of either family. */
static __always_inline void word_error(const struct pkt *pkt, __u32 reason, __u32 mtu,
				       struct icmp_header *icmp)
{
	if (reason == REASON_TOO_BIG) {
		icmp->type = pkt->v4 ? 3 : 2;
		icmp->code = pkt->v4 ? 4 : 0;
		icmp->word = bpf_htonl(mtu);
	} else if (reason == REASON_HOP_LIMIT) {
		icmp->type = pkt->v4 ? 11 : 3;
	} else {
		icmp->type = pkt->v4 ? 3 : 1;
		icmp->code = pkt->v4 ? 3 : 4;
	}
}

/* Answers for `reason`, or drops in silence. */
static __always_inline int answer(struct __sk_buff *ctx, __u32 reason, __u32 mtu)
{
	struct bpf_fib_lookup fib = {};
	struct icmp_header icmp = {};
	struct ends to = {};
	struct pkt pkt = {};
	struct frontend *frontend;
	struct odd odd = {};
	__u32 flags;
	bool made;

	if (!read_odd(ctx, &pkt, &odd))
		return drop(reason);
	frontend = asked_for(&pkt, &flags);
	tell_drop(ctx, &pkt, frontend ? frontend->service : 0, reason);
	if (!may_answer(&pkt, &odd, reason))
		return drop(reason);
	to.source = pkt.ends.destination;
	to.destination = pkt.ends.source;
	if (!is_way(look_up_way(ctx, &pkt, &to, 1, &fib)))
		return drop(reason);
	if (!is_allowed())
		return drop(REASON_ANSWER_LIMIT);
	if (is_refusal(reason) && pkt.protocol == IPPROTO_TCP && is_simple(&pkt)) {
		made = make_reset(ctx, &pkt, &to);
	} else {
		word_error(&pkt, reason, mtu, &icmp);
		made = make_error(ctx, &pkt, &to, &icmp);
	}
	if (!made)
		return drop(REASON_REWRITE);
	count(reason);
	return redirect_to_neighbour(fib.ifindex, NULL, 0, 0);
}

#endif
