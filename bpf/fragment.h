/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* fragment.h - later fragments follow their packet's first one, which alone has the ports. One
 * that comes before its first cannot be told a service's from a stranger's: the packet programs
 * hold nothing back, so it is lost where its address is a service's, and else passes.
 * Reads and writes: fragments. */
#ifndef TIDEGATE_FRAGMENT_H
#define TIDEGATE_FRAGMENT_H

#include "odd.h"

static __always_inline void fragment_key_of(const struct pkt *pkt, const struct odd *odd,
					    struct fragment_key *key)
{
	key->source = pkt->ends.source;
	key->destination = pkt->ends.destination;
	key->id = odd->id;
	key->protocol = pkt->protocol;
}

/* Of a first fragment, for those to come. */
static __always_inline void keep_ports(const struct pkt *pkt, const struct odd *odd)
{
	struct fragment ports = {};
	struct fragment_key key = {};

	fragment_key_of(pkt, odd, &key);
	ports.source_port = pkt->ends.source_port;
	ports.destination_port = pkt->ends.destination_port;
	fragments.update(&key, &ports);
}

/* Of a later one. False: its first has not come by. */
static __always_inline bool find_ports(struct pkt *pkt, const struct odd *odd)
{
	struct fragment_key key = {};
	struct fragment *ports;

	fragment_key_of(pkt, odd, &key);
	ports = fragments.lookup(&key);
	if (!ports)
		return false;
	pkt->ends.source_port = ports->source_port;
	pkt->ends.destination_port = ports->destination_port;
	return true;
}

#endif
