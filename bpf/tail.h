/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* tail.h - the tc programs that finish what is out of the ordinary. The hooks' own programs hand
 * over to them by tail calls, so that plain packets pay for none of it, neither in instructions
 * nor in stack. Each build fills its own table when it is loaded (bpf/module.py). */
#ifndef TIDEGATE_TAIL_H
#define TIDEGATE_TAIL_H

#include "types.h"

/* Places in the table; bpf/texts.py says the same of each program. */
enum tail {
	TAIL_IN = 0,     /* lb_odd_in: what lb_in could not read */
	TAIL_OUT = 1,    /* lb_odd_out: what lb_out could not read */
	TAIL_ICMP = 2,   /* lb_icmp: what lb_odd_in found to be ICMP */
	TAIL_FLOW = 3,   /* lb_flow: what lb_odd_in found to be TCP or UDP */
	TAIL_ANSWER = 4, /* lb_answer: the sender is told that its packet ends here */
	TAIL_UNWRAP = 5, /* lb_unwrap: what another node wrapped for a backend of this one */
	TAIL_BEGIN = 6,  /* lb_begin: the first packet of a flow */
	TAIL_DSR = 7,    /* lb_dsr: to a service whose backends answer the client themselves */
	TAIL_UNMARK = 8, /* lb_unmark: what another node marked for a backend of this one */
	TAIL_RETURN = 9, /* lb_return: an error about what was handed to another node */
	TAIL_PASS = 10,  /* lb_pass: an error about an answer that went past this node */
	TAILS = 11,
};

/* Where the words lie that one program leaves to the next. */
enum note {
	NOTE_REASON = 0, /* to lb_answer: enum reason */
	NOTE_MTU = 1,    /* to lb_answer: octets of an IP packet */
	NOTE_L4 = 0,     /* to lb_flow, lb_begin, lb_dsr and lb_unmark, these three: see odd.h */
	NOTE_WHENCE = 0, /* to lb_icmp: enum whence */
	NOTE_KIND = 1,
	NOTE_PORTS = 2,
	NOTE_TRY = 3, /* to lb_begin: how often it was tried before */
};

/* How an ICMP packet came. */
enum whence {
	WHENCE_OUTSIDE = 0,
	WHENCE_NODE = 1, /* handed over by another node: it goes no further */
};

BPF_PROG_ARRAY(tails, TAILS);

#endif
