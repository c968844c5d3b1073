/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Leads to the system's UAPI header, where bcc does not look by itself. */
#include_next <linux/if_packet.h>
