/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* maps.h - every table: purpose, and who writes it ("agent" is Python, "data path" these programs).
 * Sizes and pin paths come from Python (-D). Hash tables that the agent writes are not
 * preallocated: an element that is replaced or deleted stays intact under its readers until a
 * grace period has passed, and memory is locked only for what is there. The mmap-able arrays
 * are written by plain stores of the agent. */
#ifndef TIDEGATE_MAPS_H
#define TIDEGATE_MAPS_H

#include "types.h"

/* The compiler keeps the order of stores around it. */
#define barrier() asm volatile("" ::: "memory")

#define TABLE(_type, _key, _leaf, _name, _size, _flags) \
	BPF_F_TABLE(_type ":" PIN_##_name, _key, _leaf, _name, _size, _flags)

/* Address, port and protocol to service. Agent. */
TABLE("hash", struct frontend_key, struct frontend, frontends, MAX_frontends, BPF_F_NO_PREALLOC);

/* What a service offers, by service id. Agent. */
TABLE("array", __u32, struct service, services, MAX_services, BPF_F_MMAPABLE);

/* Backend ids, in runs of whole lines that the views point to. Agent. */
TABLE("array", __u32, struct line_of_slots, slots, MAX_slots, BPF_F_MMAPABLE);

/* Maglev tables, end to end, two slots an entry. Agent. */
TABLE("array", __u32, struct ring_slot, rings, MAX_rings, BPF_F_MMAPABLE);

/* Where traffic goes, by backend id. Agent. */
TABLE("array", __u32, struct backend, backends, MAX_backends, BPF_F_MMAPABLE);

/* What each backend carries, by its id. Data path; the agent clears an entry before it gives the
 * id away. */
TABLE("array", __u32, struct load, loads, MAX_loads, BPF_F_MMAPABLE);

/* Which backend a client was given. Data path; the agent only reads. */
TABLE("lru_hash", struct affinity_key, struct affinity, affinity, MAX_affinity, 0);

/* Sources that may reach a service's load balancer addresses. Agent. */
TABLE("lpm_trie", struct range_key, struct range, ranges, MAX_ranges, BPF_F_NO_PREALLOC);

/* Where cluster IPs, and pods' addresses, are taken from. Agent. */
TABLE("lpm_trie", struct cidr_key, struct cidr, cidrs, MAX_cidrs, BPF_F_NO_PREALLOC);

/* This node's own addresses, and cluster IPs. Agent. */
TABLE("hash", struct addr, struct node_address, addresses, MAX_addresses, BPF_F_NO_PREALLOC);

/* Addresses of services. Agent. */
TABLE("hash", struct addr, struct vip, vips, MAX_vips, BPF_F_NO_PREALLOC);

/* Connections over TCP from outside that began before we came, as their clients' packets have them.
 * Agent. */
TABLE("hash", struct ends, struct tracked, tracked, MAX_tracked, BPF_F_NO_PREALLOC);

/* What else the programs know of the node; one entry. Agent. */
TABLE("array", __u32, struct node, node, MAX_node, BPF_F_MMAPABLE);

/* Devices by index. Agent. */
TABLE("array", __u32, struct device, devices, MAX_devices, BPF_F_MMAPABLE);

/* Names by id, for people only. Agent. */
TABLE("hash", struct name_key, struct name, names, MAX_names, BPF_F_NO_PREALLOC);

/* How often a reason met someone, by enum reason. Data path. */
TABLE("percpu_array", __u32, struct reason_count, reasons, MAX_reasons, 0);

/* What each service carries, by its id. Data path; the agent clears an entry likewise. */
TABLE("percpu_array", __u32, struct counter, counters, MAX_counters, 0);

/* Does somebody listen to `events`? One entry. `tidegate monitor`. */
TABLE("array", __u32, struct listener, listening, MAX_listening, BPF_F_MMAPABLE);

/* Connections from outside. Data path; the agent only reads. */
TABLE("array", __u32, struct row, flows, MAX_flows, BPF_F_MMAPABLE);

/* Connections whose answers do not come by. Data path; the agent only reads. */
TABLE("array", __u32, struct dsr_row, dsr_flows, MAX_dsr_flows, BPF_F_MMAPABLE);

/* Ways to backends. Data path. */
TABLE("array", __u32, struct hop, hops, MAX_hops, BPF_F_MMAPABLE);

/* Room for a program at work. Data path. */
TABLE("percpu_array", __u32, struct scratch, scratches, MAX_scratches, 0);
/* Ports of packets that come in fragments. Data path. */
TABLE("lru_hash", struct fragment_key, struct fragment, fragments, MAX_fragments, 0);

/* How fast this node answers packets that end here. Data path. */
TABLE("percpu_array", __u32, struct allowance, allowances, MAX_allowances, 0);

/* Sizes in octets: pages, a power of two. */
#define RINGBUF(_name, _leaf) \
	struct _name##_table_t { \
		int key; \
		u32 leaf; \
		int (*ringbuf_output)(void *, u64, u64); \
		void *(*ringbuf_reserve)(u64); \
		void (*ringbuf_discard)(void *, u64); \
		void (*ringbuf_submit)(void *, u64); \
		u32 max_entries; \
	}; \
	__attribute__((section("maps/ringbuf:" PIN_##_name))) struct _name##_table_t _name = { \
		.max_entries = MAX_##_name \
	}

/* What happens, for whoever listens. Data path. */
RINGBUF(events, struct event);

/* Bandwidth limits by number; 0 is nobody's. Agent: rates; data path: clocks and counts. */
TABLE("array", __u32, struct limit, limits, MAX_limits, BPF_F_MMAPABLE);

/* The limits of a pod's address. Agent. */
TABLE("hash", struct addr, struct pod_limits, pods, MAX_pods, BPF_F_NO_PREALLOC);

/* Whose a limit is, by its number; for people and for the next agent. Agent. */
TABLE("hash", __u32, struct name, limit_names, MAX_limit_names, BPF_F_NO_PREALLOC);

/* The peer of a connected socket; goes with the socket. Data path. */
#define SK_STORAGE(_name, _leaf) \
	struct _name##_table_t { \
		int key; \
		_leaf leaf; \
		void *(*sk_storage_get)(void *, void *, int); \
		int (*sk_storage_delete)(void *); \
		u32 flags; \
	}; \
	__attribute__((section("maps/sk_storage:" PIN_##_name))) struct _name##_table_t _name = { \
		.flags = BPF_F_NO_PREALLOC \
	}; \
	BPF_ANNOTATE_KV_PAIR(_name, int, _leaf)

SK_STORAGE(connected, struct peer);

/* The peers of an unconnected UDP socket; go with the socket. Data path. */
SK_STORAGE(unconnected, struct peers);

#endif
