// SPDX-License-Identifier: Apache-2.0
/* _fill - Maglev table fill (Eisenbud et al., NSDI 2016, 3.4), weighted, without the GIL.
 *
 * One function, fill(slots, keys, weights, numbers). Inputs are copied and checked before the
 * first slot is written, so a refused call leaves the buffer as it was. No modulo per probe.
 * The model, and what was tried and dropped, stand in DESIGN.md.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define KEY_BYTES 16		/* two little-endian 64-bit halves of murmur3 */
#define MAX_SLOTS (1u << 24)	/* keeps the ranks of fill_tail() exact */
#define MAX_WEIGHT 65535u
#define MAX_GROUP 8		/* probes looked at together */
#define ALWAYS_INLINE inline __attribute__((always_inline))

struct seat {			/* one backend's place in the round */
	uint32_t next;		/* the slot it asks for first */
	uint32_t skip;
	uint32_t number;	/* what is written into its slots */
	uint32_t weight;
	int64_t credit;		/* 2^(shift + 1) is one turn: see fill_weighted() */
};

struct order {
	uint64_t key;
	uint64_t index;
};

struct table {
	uint32_t *slots;
	uint8_t *taken;
	uint32_t *left_over;	/* free slots, once they are few */
	struct seat *seats;
	uint32_t *turns;	/* of one round: at most two for each seat on average */
	uint32_t size;
	uint32_t count;
	uint32_t left;		/* slots still free */
	uint32_t tail;		/* from here on fill_tail() is cheaper than probing */
};

static uint64_t load_le64(const uint8_t *bytes)
{
	uint64_t value = 0;

	for (int i = 7; i >= 0; i--)
		value = value << 8 | bytes[i];
	return value;
}

static int is_prime(uint32_t number)
{
	if (number < 2)
		return 0;
	for (uint32_t divisor = 2; divisor * divisor <= number; divisor++)
		if (number % divisor == 0)
			return 0;
	return 1;
}

static inline uint32_t step(uint32_t slot, uint32_t skip, uint32_t size)
{
	uint32_t sum = slot + skip, wrapped = sum - size;

	return sum < size ? sum : wrapped;
}

/* The first free slot of a permutation from `slot` on. Looking at a group at a time trades cheap
 * loads for branches that no predictor can learn. `group` is a constant: the loop unrolls. */
static ALWAYS_INLINE uint32_t probe(const struct table *t, uint32_t slot, uint32_t skip, int group)
{
	for (;;) {
		uint32_t at[MAX_GROUP];
		uint32_t busy = 0;

		for (int i = 0; i < group; i++) {
			at[i] = slot;
			busy |= (uint32_t)t->taken[slot] << i;
			slot = step(slot, skip, t->size);
		}
		if (busy != (1u << group) - 1)
			return at[__builtin_ctz(~busy)];
	}
}

/* The fuller the table, the larger the group. */
static ALWAYS_INLINE uint32_t first_free(const struct table *t, uint32_t slot, uint32_t skip)
{
	if (t->left > t->size / 4 * 3)
		return probe(t, slot, skip, 2);
	if (t->left > t->size / 4)
		return probe(t, slot, skip, 4);
	return probe(t, slot, skip, MAX_GROUP);
}

static uint32_t inverse(uint32_t value, uint32_t prime)
{
	int64_t x = 0, next_x = 1;
	uint32_t r = prime, next_r = value;

	while (next_r) {
		uint32_t quotient = r / next_r, rest = r % next_r;
		int64_t rest_x = x - (int64_t)quotient * next_x;

		r = next_r, next_r = rest;
		x = next_x, next_x = rest_x;
	}
	return (uint32_t)(x < 0 ? x + prime : x);
}

/* floor(2^64 * part / whole), part < whole < 2^24 */
static uint64_t fraction(uint32_t part, uint32_t whole)
{
	uint64_t high = ((uint64_t)part << 32) / whole;
	uint64_t rest = ((uint64_t)part << 32) % whole;

	return high << 32 | (rest << 32) / whole;
}

/* With few slots left, ask each of them for its place in the permutation instead of walking it:
 * place = (slot - next) / skip mod size. As a 64-bit binary fraction of a turn the modulo is the
 * wrap of the multiplication; below 2^24 slots its rounding cannot swap two places. */
static void take_tail(struct table *t, struct seat *seat)
{
	uint64_t turn = fraction(inverse(seat->skip, t->size), t->size);
	uint64_t best = UINT64_MAX;
	uint32_t at = 0, slot;

	for (uint32_t i = 0; i < t->left; i++) {
		uint64_t place = ((uint64_t)t->left_over[i] - seat->next) * turn;

		at = place < best ? i : at;
		best = place < best ? place : best;
	}
	slot = t->left_over[at];
	t->left_over[at] = t->left_over[--t->left];
	t->slots[slot] = seat->number;
	seat->next = step(slot, seat->skip, t->size);
}

static void list_left_over(struct table *t)
{
	uint32_t found = 0;

	for (uint32_t slot = 0; slot < t->size && found < t->left; slot++)
		if (!t->taken[slot])
			t->left_over[found++] = slot;
}

static inline void take(struct table *t, struct seat *seat)
{
	if (t->left > t->tail) {
		uint32_t slot = first_free(t, seat->next, seat->skip);

		t->taken[slot] = 1;
		t->slots[slot] = seat->number;
		seat->next = step(slot, seat->skip, t->size);
		if (--t->left == t->tail)
			list_left_over(t);
	} else {
		take_tail(t, seat);
	}
}

static void fill_equal(struct table *t)
{
	while (t->left)
		for (uint32_t i = 0; i < t->count && t->left; i++)
			take(t, &t->seats[i]);
}

/* Turn k > 0 of a backend falls due at time (k + 1/2) / weight; turn 0 at once, so that every
 * backend has a slot and the others round to the nearest. Time passes in rounds of 1 / 2^shift.
 * A round's turns are listed before they are taken: a branch on each would be a coin toss. */
static void fill_weighted(struct table *t, unsigned int shift)
{
	for (uint32_t i = 0; i < t->count; i++) {
		take(t, &t->seats[i]);
		t->seats[i].credit = -((int64_t)1 << shift);
	}
	while (t->left) {
		uint32_t turns = 0;

		for (uint32_t i = 0; i < t->count; i++) {
			int64_t credit = t->seats[i].credit + 2 * (int64_t)t->seats[i].weight;
			uint32_t due = credit < 0 ? 0 : (uint32_t)(credit >> (shift + 1));

			t->seats[i].credit = credit - ((int64_t)due << (shift + 1));
			t->turns[turns] = i;
			for (uint32_t more = 1; more < due; more++)
				t->turns[turns + more] = i;
			turns += due;
		}
		for (uint32_t i = 0; i < turns && t->left; i++)
			take(t, &t->seats[t->turns[i]]);
	}
}

/* Least significant byte first. Returns which of the two arrays holds the result. */
static struct order *sort(struct order *from, struct order *to, uint32_t count)
{
	for (unsigned int shift = 0; shift < 64; shift += 8) {
		uint32_t start[256] = { 0 }, sum = 0;
		struct order *swap = from;

		for (uint32_t i = 0; i < count; i++)
			start[from[i].key >> shift & 255]++;
		for (unsigned int i = 0; i < 256; i++) {
			uint32_t here = start[i];

			start[i] = sum;
			sum += here;
		}
		for (uint32_t i = 0; i < count; i++)
			to[start[from[i].key >> shift & 255]++] = from[i];
		from = to;
		to = swap;
	}
	return from;
}

/* The whole work, on plain memory. Returns NULL, or what is wrong with the input. */
static const char *run(struct table *t, const uint8_t *keys, const uint32_t *weights,
		       const uint32_t *numbers, uint32_t given, struct order *order)
{
	uint64_t sum = 0;
	unsigned int shift = 0;
	uint32_t least = UINT32_MAX, most = 0;

	for (uint32_t i = 0; i < given; i++) {
		if (weights[i] > MAX_WEIGHT)
			return "a weight is above 65535";
		if (weights[i])
			order[t->count++] = (struct order){ load_le64(keys + KEY_BYTES * i), i };
	}
	if (!t->count)
		return "no backend has a weight above 0";
	if (t->count > t->size)
		return "more backends than slots: use a larger table";
	order = sort(order, order + given, t->count);
	for (uint32_t i = 0; i < t->count; i++) {
		uint64_t index = order[i].index;
		uint32_t weight = weights[index];

		if (i && order[i].key == order[i - 1].key)
			return "two backends have the same name";
		t->seats[i] = (struct seat){
			.next = (uint32_t)(order[i].key % t->size),
			.skip = (uint32_t)(load_le64(keys + KEY_BYTES * index + 8) %
					   (t->size - 1) + 1),
			.number = numbers[index],
			.weight = weight,
		};
		sum += weight;
		least = weight < least ? weight : least;
		most = weight > most ? weight : most;
	}
	memset(t->taken, 0, t->size);
	t->left = t->size;
	if (t->left <= t->tail)
		list_left_over(t);
	if (least == most) {
		fill_equal(t);
		return NULL;
	}
	/* At least the mean weight, which bounds a round's turns; a power of two, so that one
	 * backend more or less rarely changes the rounds. */
	while ((uint64_t)t->count << shift < sum)
		shift++;
	fill_weighted(t, shift);
	return NULL;
}

/* A plain view of a buffer of `unit`-byte items, or a ValueError that names it. */
static int view_of(PyObject *object, const char *name, int flags, uintptr_t unit, Py_buffer *view)
{
	if (PyObject_GetBuffer(object, view, flags)) {
		if (PyObject_CheckBuffer(object))
			PyErr_Format(PyExc_ValueError, "%s: must be contiguous%s", name,
				     flags & PyBUF_WRITABLE ? " and writable" : "");
		return -1;
	}
	if ((uintptr_t)view->len % unit || (unit == 4 && (uintptr_t)view->buf % unit)) {
		PyErr_Format(PyExc_ValueError, "%s: must be aligned items of %d bytes", name,
			     (int)unit);
		PyBuffer_Release(view);
		return -1;
	}
	return 0;
}

static PyObject *fill_views(const Py_buffer *slots, const Py_buffer *keys,
			    const Py_buffer *weights, const Py_buffer *numbers)
{
	Py_ssize_t size = slots->len / 4, given = keys->len / KEY_BYTES;
	struct table t = { .slots = slots->buf };
	struct order *order;
	const char *wrong;

	if (size > MAX_SLOTS || !is_prime((uint32_t)size))
		return PyErr_Format(PyExc_ValueError,
				    "a table of %zd slots: must be a prime below 16777216", size);
	if (given > MAX_SLOTS || weights->len / 4 != given || numbers->len / 4 != given)
		return PyErr_Format(PyExc_ValueError,
				    "%zd keys, %zd weights and %zd numbers: must be equally many",
				    given, weights->len / 4, numbers->len / 4);
	t.size = (uint32_t)size;
	while (t.tail * t.tail < t.size)
		t.tail++;
	order = malloc(2 * sizeof(*order) * (size_t)given + 1);
	t.seats = malloc(sizeof(*t.seats) * (size_t)given + 1);
	t.turns = malloc(sizeof(*t.turns) * 2 * (size_t)given + 8);
	t.left_over = malloc(sizeof(*t.left_over) * t.tail);
	t.taken = malloc(t.size);
	if (order && t.seats && t.turns && t.left_over && t.taken) {
		Py_BEGIN_ALLOW_THREADS
		wrong = run(&t, keys->buf, weights->buf, numbers->buf, (uint32_t)given, order);
		Py_END_ALLOW_THREADS
		if (wrong)
			PyErr_SetString(PyExc_ValueError, wrong);
	} else {
		PyErr_NoMemory();
	}
	free(t.taken);
	free(t.left_over);
	free(t.turns);
	free(t.seats);
	free(order);
	return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

PyDoc_STRVAR(fill_doc,
"fill(slots, keys, weights, numbers, /)\n--\n\n"
"Write the Maglev table of a set of backends into `slots`.\n\n"
"`slots`: a writable buffer of native 32-bit items, a prime number of them. For each backend 16\n"
"bytes of `keys` (`maglev.permutation`), a native 32-bit weight of 0 to 65535 (0: no slot) and a\n"
"native 32-bit number that is written into its slots. Raises ValueError and leaves `slots` alone.");

static PyObject *fill(PyObject *module, PyObject *args)
{
	static const struct { const char *name; int flags; uintptr_t unit; } wanted[4] = {
		{ "slots", PyBUF_WRITABLE, 4 },
		{ "keys", PyBUF_SIMPLE, KEY_BYTES },
		{ "weights", PyBUF_SIMPLE, 4 },
		{ "numbers", PyBUF_SIMPLE, 4 },
	};
	PyObject *object[4], *result = NULL;
	Py_buffer view[4];
	int held = 0;

	(void)module;
	if (!PyArg_UnpackTuple(args, "fill", 4, 4, &object[0], &object[1], &object[2], &object[3]))
		return NULL;
	while (held < 4 && !view_of(object[held], wanted[held].name, wanted[held].flags,
				    wanted[held].unit, &view[held]))
		held++;
	if (held == 4)
		result = fill_views(&view[0], &view[1], &view[2], &view[3]);
	while (held)
		PyBuffer_Release(&view[--held]);
	return result;
}

static PyMethodDef methods[] = {
	{ "fill", fill, METH_VARARGS, fill_doc },
	{ NULL, NULL, 0, NULL },
};

static struct PyModuleDef definition = {
	PyModuleDef_HEAD_INIT,
	.m_name = "maglev._fill",
	.m_doc = "Maglev table fill in native code.",
	.m_methods = methods,
};

PyMODINIT_FUNC PyInit__fill(void)
{
	return PyModuleDef_Init(&definition);
}
