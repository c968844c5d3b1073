/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* types.h - the layouts that cross between the kernel and Python; the only definition of each.
 * Includes nothing but linux/types.h and its own other part, compiles on the host too. Constants
 * are enums, since BTF carries enums and not macros. `python -m bpf.gen` makes layout.py of it. */
#ifndef TIDEGATE_TYPES_H
#define TIDEGATE_TYPES_H

#include <linux/types.h>

/* An address of either family; IPv4 is ::ffff:a.b.c.d (RFC 4291, 2.5.5.2). */
struct addr {
	__be32 word[4];
};

/* What a frontend's address field means. */
enum scope {
	SCOPE_ADDRESS = 0,  /* this address */
	SCOPE_NODE = 1,     /* any address of this node that accepts node ports */
	SCOPE_LOOPBACK = 2, /* 127.0.0.0/8, as this node's own processes see it */
};

enum frontend_type {
	FRONTEND_CLUSTER_IP = 0,
	FRONTEND_NODE_PORT = 1,
	FRONTEND_EXTERNAL_IP = 2,
	FRONTEND_LOAD_BALANCER = 3,
	FRONTEND_HOST_PORT = 4,
};

enum frontend_flag {
	FRONTEND_RANGES = 1, /* only sources in `ranges` may come in */
	FRONTEND_DSR = 2,    /* backends of other nodes answer the client themselves */
	FRONTEND_OPT = 4,    /* they hear of it by an IP option, and not by a second header */
};

struct frontend_key {
	struct addr address; /* unspecified address of the family for SCOPE_NODE; 127.0.0.1 */
	__be16 port;
	__u8 protocol; /* IPPROTO_* */
	__u8 scope;    /* enum scope */
};

struct frontend {
	__u32 service;
	__u8 type;  /* enum frontend_type */
	__u8 flags; /* enum frontend_flag */
	__u16 pad;
};

/* The lists of backends that a service offers, by the way traffic comes. */
enum view {
	VIEW_CLUSTER_IP = 0, /* to the cluster IP, from anywhere: internal policy */
	VIEW_INSIDE = 1,     /* to any other frontend, from pods and this node */
	VIEW_OUTSIDE = 2,    /* to any other frontend, from outside: external policy */
};

/* What a connect meets where a view has no backend. */
enum empty {
	EMPTY_REFUSE = 0,
	EMPTY_DROP = 1,
};

enum service_flag {
	SERVICE_USED = 1, /* the id belongs to a service */
};

/* One port of a Service in one family. A view is one aligned word, so that a switch from one
 * list to another is a single store: low half the number of backends; high half the first line
 * in `slots`, or enum empty where the number is 0. */
struct service {
	__u64 view[3];          /* by enum view */
	__u32 affinity_seconds; /* 0: no session affinity */
	__u32 affinity_epoch;   /* memories of another epoch do not count */
	__u32 flags;            /* enum service_flag */
	__u32 pad;
	__u64 ring; /* Maglev table of VIEW_OUTSIDE: low half its size, high half the first slot in
		     * `rings`; 0: none */
};

/* Backend ids of a view, side by side: one cache line each. */
enum line {
	LINE_SLOTS = 16,
};

struct line_of_slots {
	__u32 backend[16];
};

enum backend_state {
	BACKEND_FREE = 0,
	BACKEND_READY = 1,
	BACKEND_TERMINATING = 2,
};

enum backend_flag {
	BACKEND_HERE = 128, /* among the views: it runs on this node */
};

/* One endpoint of one service port; never shared between services. */
struct backend {
	struct addr address;
	__be16 port;
	__u8 state;       /* enum backend_state */
	__u8 views;       /* bit n: listed in view n; BACKEND_HERE */
	__u32 generation; /* moves on when the id is given away */
	__u32 service;
	__u16 node; /* in `names`, 0: unknown */
	__u16 zone; /* in `names`, 0: unknown */
};

/* What a backend had to carry. Of sockets: open now = opened - closed. From outside: packets and
 * octets are those of flows that have left `flows`; the others count there. */
struct load {
	__u64 opened;
	__u64 closed;
	__u64 flows; /* begun */
	__u64 packets;
	__u64 octets; /* of IP packets, both ways */
};

enum client_kind {
	CLIENT_ADDRESS = 0, /* key is the source address */
	CLIENT_NETNS = 1,   /* key is the cookie of the network namespace, in the low 64 bits */
};

struct affinity_key {
	struct addr client;
	__u32 service;
	__u32 kind; /* enum client_kind */
};

struct affinity {
	__u64 used; /* ns of CLOCK_MONOTONIC at the last new connection */
	__u32 backend;
	__u32 generation; /* of the backend */
	__u32 epoch;      /* of the service */
	__u32 pad;
};

/* A slot of a Maglev table. */
struct ring_slot {
	__u64 pair; /* two backend ids: slots 2n (low half) and 2n + 1 */
};

struct range_key {
	__u32 prefix; /* bits that count: 32 for the service, then the address */
	__u32 service;
	struct addr source;
};

struct range {
	__u32 pad;
};

enum address_flag {
	ADDRESS_LOCAL = 1,      /* one of this node's own */
	ADDRESS_NODE_PORT = 2,  /* accepts node ports */
	ADDRESS_CLUSTER_IP = 4, /* of a service */
	ADDRESS_PEER = 8,       /* another node's: it may hand over packets for pods of this one */
};

struct node_address {
	__u32 flags; /* enum address_flag */
};

enum vip_flag {
	VIP_SERVES = 1, /* one of its services has a usable backend for traffic from outside */
};

/* An address of services, whatever their ports; none of a node's own. */
struct vip {
	__u32 flags; /* enum vip_flag */
};

/* Both ends of a packet; what checksums cover lies side by side. */
struct ends {
	struct addr source;
	struct addr destination;
	__be16 source_port;
	__be16 destination_port;
};

/* The kernel's own connection tracking translates it. */
struct tracked {
	__u32 unused;
};

/* Whose addresses a prefix holds; the longest prefix counts. */
enum cidr_kind {
	CIDR_SERVICES = 1, /* cluster IPs are taken from it: a ServiceCIDR */
	CIDR_PODS = 2,     /* pods that are known by their address: detectLocalMode */
};

struct cidr_key {
	__u32 prefix; /* bits of the address that count */
	struct addr address;
};

struct cidr {
	__u32 kinds; /* enum cidr_kind */
};

/* Values that change while programs run; those that do not are compile-time constants. */
struct node {
	__u64 netns;        /* cookie of the node's own network namespace */
	struct addr v4, v6; /* its primary addresses; unspecified: it has none of that family */
	__u32 first_port;   /* all ports of SCOPE_NODE lie from here */
	__u32 last_port;    /* to here */
	/* The tunnels of the pods' network, of each family, where it has any: what goes by one has
	 * its address as source, as masquerading gives it. Else answers come another way, or not. */
	struct addr tunnel_v4, tunnel_v6;
	__u32 device_v4, device_v6; /* indexes; 0: none */
};

enum peer_flag {
	PEER_DROP = 1,   /* nothing may leave for here */
	PEER_RANGES = 2, /* the source has to be in `ranges` */
};

/* What a socket asked for (frontend) and what it talks to (backend). */
struct peer {
	struct addr frontend;
	struct addr address; /* of the backend */
	__be16 frontend_port;
	__be16 port; /* of the backend; 0: empty */
	__u32 service;
	__u32 backend;
	__u32 generation; /* of the backend */
	__u32 flags;      /* enum peer_flag */
	__u32 pad;
};

/* The peers of one unconnected UDP socket; the oldest gives way. */
enum peers_size {
	PEERS = 16,
};

struct peers {
	struct peer peer[16];
	__u32 next;
	__u32 pad;
};

enum device_flag {
	DEVICE_ETHERNET = 1, /* generic XDP can send through it */
	DEVICE_SENDS = 2,    /* native XDP of other devices can, too */
	DEVICE_RETURNS = 4,  /* native XDP sends back what came from it (XDP_TX) */
	DEVICE_GENERIC = 8,  /* XDP is generic here */
	DEVICE_VIRTUAL = 16, /* what comes may carry checksums that nobody finished yet */
};

/* A device as XDP knows it, by its index. */
struct device {
	__u8 mac[6]; /* its own; all zeros: it has none */
	__u8 flags;  /* enum device_flag */
	__u8 pad;
};

/* How a packet from outside gets to its backend. */
enum forwarding {
	FORWARDING_LOCAL = 0, /* backend or client are of this node: only the destination changes */
	FORWARDING_SNAT = 1,  /* both ends rewritten; the answers come back through this node */
	FORWARDING_DSR = 2,   /* handed to the backend's node, which answers the client itself */
};

enum flow_state {
	FLOW_FREE = 0,
	FLOW_NEW = 1,         /* nothing has come back yet; TCP: or the client did not take it up */
	FLOW_ESTABLISHED = 2, /* packets both ways */
	FLOW_CLOSING = 3,     /* TCP: FIN or RST was seen */
};

/* What is known of a flow: TCP's ends of either side, and whether the backend ever answered. */
enum flow_fact {
	FACT_CLIENT_FIN = 1,
	FACT_BACKEND_FIN = 2,
	FACT_FINS = 3, /* both */
	FACT_ANSWER = 4,
	FACT_TUNNEL = 8, /* SNAT: by the tunnel's address */
};

/* Seconds without a packet after which a flow is over. */
enum flow_timeout {
	TIMEOUT_NEW = 60,     /* FLOW_NEW */
	TIMEOUT_UDP = 180,    /* FLOW_ESTABLISHED of UDP */
	TIMEOUT_TCP = 86400,  /* FLOW_ESTABLISHED of TCP; far beyond a keepalive's two hours */
	TIMEOUT_CLOSING = 10, /* FLOW_CLOSING */
};

/* The ports of this node that stand for clients: the dynamic range (RFC 6335, 6). Each has its
 * own row of flows. */
enum snat {
	SNAT_FIRST_PORT = 49152,
	SNAT_PORTS = 16384,
};

/* A connection from outside, remembered once and found from both sides: by what the client
 * sends (client to frontend), and by what comes back (backend to client, or to `port`). */
struct flow {
	struct addr client;
	struct addr frontend;
	struct addr backend;
	__be16 client_port;
	__be16 frontend_port;
	__be16 backend_port;
	__be16 port; /* of this node, towards the backend; 0: the client's address goes there */
	__u32 service;
	__u32 id;         /* of the backend */
	__u32 generation; /* of the backend */
	__u8 protocol;    /* IPPROTO_* */
	__u8 state;       /* enum flow_state */
	__u8 mode;        /* enum forwarding */
	__u8 facts;       /* enum flow_fact */
	__u64 used;       /* ns of CLOCK_MONOTONIC at the last packet, either way */
	__u64 packets;
	__u64 octets; /* of IP packets */
};

/* Flows whose client hashes here, or whose `port` is the row's own. The tags are hashes of what
 * the client sends and of what comes back, 0 for a free place. */
enum row_size {
	ROW_WAYS = 8,
};

struct row {
	__u64 lock;    /* 1: somebody puts a flow in; bcc's compiler swaps words of 64 bits only */
	__u32 crowded; /* 1: a flow had to go to one of the next rows */
	__u32 chosen;  /* under the lock: the way for the new flow */
	__u32 forth[8];
	__u32 back[8];
	struct flow flow[8];
};

/* What the fragments of one packet have in common (RFC 791, 3.2; RFC 8200, 4.5). */
struct fragment_key {
	struct addr source;
	struct addr destination;
	__u32 id;      /* as it is on the wire; IPv4 has 16 bits */
	__u8 protocol; /* IPPROTO_* */
	__u8 pad[3];
};

/* The ports, which only the first fragment has. */
struct fragment {
	__be16 source_port;
	__be16 destination_port;
};

/* How many packets that end here are answered, by each CPU, with a TCP RST or an ICMP error. */
enum answer_limit {
	ANSWERS_PER_SECOND = 1000,
	ANSWERS_AT_ONCE = 1000, /* after a time of silence */
};

struct allowance {
	__u64 next; /* ns of CLOCK_MONOTONIC at which one more answer would be just in time */
};

/* A connection whose packets are wrapped for a backend elsewhere: what keeps it with its backend,
 * and no more, since only the client's half comes by. `tag` stands for the frontend, and checks
 * the rest: an entry that two programs wrote at once belongs to nobody. */
struct dsr_flow {
	struct addr client;
	__be16 port; /* of the client */
	__u16 tag;   /* 0: free */
	__u32 backend;
	__u32 generation; /* of the backend */
	__u32 used;       /* at the last packet: CLOCK_MONOTONIC in units of 2^30 ns */
};

/* Flows whose client and frontend hash here: two cache lines. */
enum dsr_row_size {
	DSR_WAYS = 4,
};

struct dsr_row {
	struct dsr_flow flow[4];
};

/* The way to a backend as XDP found it last, by backend id. */
struct hop {
	__u64 until;  /* ns of CLOCK_MONOTONIC; asked again from then on */
	__u32 device; /* its index */
	__u16 octets; /* of the largest IP packet */
	__u8 source[6];
	__u8 destination[6];
	__u8 pad[6];
};

/* What the 512 bytes of a program's stack have no room for; nothing lasts in it. */
struct scratch {
	__u32 word[64];
};

#include "names.h"

#include "limits.h"
#include "seen.h"

#endif
