/* Reads lines of CSV of which it is certain; at the first doubt it gives the whole block up.
 *
 * Certain are rows that begin with the prefix and hold exactly the columns asked for: times of 16 digits within their
 * bounds, plain decimal numbers of at most 15 digits, printable ASCII without blanks, words of a list. What else a row
 * may be, and what to say of a bad one, is csv.py's business: Arrow's reader is the judge of every block given up here.
 *
 * Nothing is read beyond the block and nothing written beyond `room`; offsets into it are checked. No state is kept.
 */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <float.h>
#include <stdint.h>
#include <string.h>

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__ || FLT_EVAL_METHOD != 0
#error "the first of 8 bytes must be the lowest, and a quotient rounded once"
#endif

#define MOST_COLUMNS 256
#define MOST_WORDS 4
#define WORD_BYTES 8

typedef struct {
  int kind, may_be_empty;
  int64_t low, high; /* of a time: [low, high) */
  int words, length[MOST_WORDS]; /* of a word or flag: how many it may be, and how long */
  uint64_t word[MOST_WORDS], mask[MOST_WORDS]; /* their bytes with the separator's, and which bytes these are */
  uint8_t *present; /* bitmap, where it may be empty */
  union { int64_t *times; double *numbers; int32_t *ends; uint8_t *flags; } to;
  char *text, *text_end;
  Py_ssize_t empty; /* how many were */
} Column;

#define EACH(byte) (UINT64_C(0x0101010101010101) * (uint8_t)(byte))

/* Return 8 bytes, the first the lowest, zeros for those beyond `end`. */
static inline uint64_t load(const char *at, const char *end) {
  uint64_t bytes = 0;
  if (end - at >= 8) memcpy(&bytes, at, 8);
  else memcpy(&bytes, at, (size_t)(end - at));
  return bytes;
}

/* Which of 8 bytes are zero: the high bits of those, exact up to the first. */
static inline uint64_t zero(uint64_t bytes) { return (bytes - EACH(1)) & ~bytes & EACH(0x80); }

/* How many of 8 bytes come before the first that has its high bit set here, 8 where none has. */
static inline int before(uint64_t bits) { return bits ? __builtin_ctzll(bits) >> 3 : 8; }

/* Which of 8 bytes are not the values of digits: the high bits of those, exact up to the first. */
static inline uint64_t beyond(uint64_t values) { return ((values + EACH(0x76)) | values) & EACH(0x80); }

/* How many digits 8 bytes begin with. */
static inline int leading(uint64_t bytes) { return before(beyond(bytes ^ EACH('0'))); }

/* The number that the first `count` (1 to 8) bytes make, all digits: two, then four, then eight of them at a time. */
static inline uint64_t made(uint64_t bytes, int count) {
  uint64_t values = (bytes ^ EACH('0')) << (64 - 8 * count);
  values = (values * 10 + (values >> 8)) & UINT64_C(0x00FF00FF00FF00FF);
  values = (values * 100 + (values >> 16)) & UINT64_C(0x0000FFFF0000FFFF);
  return (values * 10000 + (values >> 32)) & UINT64_C(0xFFFFFFFF);
}

/* Each reader below returns where the next column begins, NULL when in doubt. */

/* A whole number below 10^15 and a power of ten up to 10^14 are doubles, so their quotient is the nearest double. */
static const double TEN_TO[] = {1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14};

static const char *long_number(const char *at, const char *end, char stop, double *to) {
  int minus = *at == '-', count = 0, places = 0;
  const char *begin = at += minus, *point = NULL;
  int64_t digits = 0;
  for (; at < end && *at != stop; at++) {
    if (*at == '.' && !point && at > begin) { point = at; continue; }
    if (*at < '0' || *at > '9' || ++count > 15) return NULL;
    digits = digits * 10 + (*at - '0');
    places += point != NULL;
  }
  if (at == end || (point && places == 0)) return NULL;
  double value = (double)digits / TEN_TO[places];
  *to = minus ? -value : value;
  return at + 1;
}

/* A number of up to 7 digits, a point and up to 7 more; any other is a long one. */
static inline const char *number(const char *at, const char *end, char stop, double *to) {
  const char *begin = at;
  uint64_t bytes = load(at, end);
  int minus = (char)bytes == '-';
  if (minus) bytes = load(++at, end);
  int whole = leading(bytes), places = 0;
  if (whole == 0) return NULL;
  if (whole == 8) return long_number(begin, end, stop, to);
  uint64_t digits = made(bytes, whole);
  char next = (char)(bytes >> (8 * whole));
  at += whole;
  if (next == '.') {
    bytes = load(++at, end);
    places = leading(bytes);
    if (places == 0) return NULL;
    if (places == 8) return long_number(begin, end, stop, to);
    digits = digits * (uint64_t)TEN_TO[places] + made(bytes, places);
    next = (char)(bytes >> (8 * places));
    at += places;
  }
  if (next != stop) return NULL;
  double value = (double)(int64_t)digits / TEN_TO[places];
  *to = minus ? -value : value;
  return at + 1;
}

static inline const char *timestamp(const char *at, const char *end, char stop, const Column *column, int64_t *to) {
  if (end - at < 17 || at[16] != stop) return NULL;
  uint64_t first = load(at, end), last = load(at + 8, end);
  if (leading(first) != 8 || leading(last) != 8) return NULL;
  *to = (int64_t)(made(first, 8) * 100000000 + made(last, 8));
  return *to >= column->low && *to < column->high ? at + 17 : NULL;
}

static inline const char *text(const char *at, const char *end, char stop, Column *column) {
  for (;;) {
    uint64_t bytes = load(at, end);
    /* up to the first byte that is a comma, a blank or below, or not ASCII */
    int count = before(zero(bytes ^ EACH(',')) | (((bytes - EACH(0x21)) | bytes) & EACH(0x80)));
    if (column->text_end - column->text < 8) return NULL;
    memcpy(column->text, &bytes, 8);
    column->text += count;
    at += count;
    if (count < 8) return at < end && *at == stop ? at + 1 : NULL;
  }
}

/* Return which word of the column stands here, -1 for none. */
static inline int word(const char *at, const char *end, const Column *column) {
  uint64_t bytes = load(at, end);
  int which = -1;
  for (int i = 0; i < column->words; i++) which = ((bytes ^ column->word[i]) & column->mask[i]) == 0 ? i : which;
  return which;
}

static inline const char *value(const char *at, const char *end, char stop, Column *column, Py_ssize_t row) {
  int which;
  if (column->present && at < end && *at == stop) {
    column->present[row >> 3] &= (uint8_t)~(1 << (row & 7));
    column->to.times[row] = 0; /* times and numbers only: zero bits are 0.0 */
    column->empty++;
    return at + 1;
  }
  switch (column->kind) {
    case 'n': return number(at, end, stop, &column->to.numbers[row]);
    case 't': return timestamp(at, end, stop, column, &column->to.times[row]);
    case 's': {
      const char *begin = column->text, *next = text(at, end, stop, column);
      if (column->text == begin && !column->may_be_empty) return NULL;
      column->to.ends[row + 1] = column->to.ends[row] + (int32_t)(column->text - begin);
      return next;
    }
    case 'w':
      which = word(at, end, column);
      if (which < 0 || column->text_end - column->text < WORD_BYTES) return NULL;
      memcpy(column->text, &column->word[which], WORD_BYTES);
      column->text += column->length[which];
      column->to.ends[row + 1] = column->to.ends[row] + column->length[which];
      return at + column->length[which] + 1;
    default: /* a flag: the second word is true */
      which = word(at, end, column);
      if (which < 0) return NULL;
      column->to.flags[row >> 3] |= (uint8_t)(which << (row & 7));
      return at + column->length[which] + 1;
  }
}

static int fill(const char *at, const char *end, const Py_buffer *prefix, Py_ssize_t rows, Column *columns, int width) {
  for (Py_ssize_t row = 0; row < rows; row++) {
    if (end - at < prefix->len || memcmp(at, prefix->buf, (size_t)prefix->len) != 0) return 0;
    at += prefix->len;
    for (int i = 0; i < width; i++)
      if (!(at = value(at, end, i + 1 < width ? ',' : '\n', &columns[i], row))) return 0;
  }
  return at == end;
}

/* Return `bytes` of `room` from `at` on, NULL where they are not inside. */
static char *inside(const Py_buffer *room, Py_ssize_t at, Py_ssize_t bytes) {
  return at >= 0 && bytes >= 0 && at <= room->len && bytes <= room->len - at ? (char *)room->buf + at : NULL;
}

static int set_words(Column *column, const char *words, Py_ssize_t bytes, char stop) {
  for (Py_ssize_t begin = 0, at = 0; at <= bytes; at++) {
    if (at < bytes && words[at] != ' ') continue;
    Py_ssize_t length = at - begin;
    if (column->words == MOST_WORDS || length >= WORD_BYTES) return 0;
    uint64_t taken = 0;
    memcpy(&taken, words + begin, (size_t)length);
    column->word[column->words] = taken | (uint64_t)(uint8_t)stop << (8 * length);
    column->mask[column->words] = ~UINT64_C(0) >> (8 * (WORD_BYTES - 1 - length));
    column->length[column->words++] = (int)length;
    begin = at + 1;
  }
  return 1;
}

static int set_column(Column *column, PyObject *given, const Py_buffer *room, Py_ssize_t rows, char stop) {
  const char *words;
  Py_ssize_t bytes, present_at, values_at, text_at, text_bytes;
  if (!PyArg_ParseTuple(given, "CpLLy#nnnn", &column->kind, &column->may_be_empty, &column->low, &column->high, &words,
                        &bytes, &present_at, &values_at, &text_at, &text_bytes))
    return 0;
  Py_ssize_t bits = (rows + 7) / 8;
  int fixed = column->kind == 't' || column->kind == 'n', flag = column->kind == 'f', spelled = column->kind == 'w' || flag;
  char *values = inside(room, values_at, fixed ? rows * 8 : flag ? bits : (rows + 1) * 4);
  char *present = fixed && column->may_be_empty ? inside(room, present_at, bits) : NULL;
  column->text = inside(room, text_at, text_bytes);
  if (!(fixed || spelled || column->kind == 's') || !values || (uintptr_t)values % 8 || !column->text ||
      (fixed && column->may_be_empty && !present) || (spelled && !set_words(column, words, bytes, stop))) {
    PyErr_SetString(PyExc_ValueError, "a column that cannot be filled");
    return 0;
  }
  column->text_end = column->text + text_bytes;
  column->present = (uint8_t *)present;
  column->to.flags = (uint8_t *)values;
  if (present) memset(present, 0xFF, (size_t)bits);
  if (flag) memset(values, 0, (size_t)bits);
  if (!fixed && !flag) column->to.ends[0] = 0;
  return 1;
}

static PyObject *counts(const Column *columns, Py_ssize_t width) {
  PyObject *result = PyTuple_New(width);
  for (Py_ssize_t i = 0; result && i < width; i++) {
    PyObject *count = PyLong_FromSsize_t(columns[i].empty);
    if (!count || PyTuple_SetItem(result, i, count) < 0) Py_CLEAR(result);
  }
  return result;
}

static PyObject *filled(Py_buffer *block, Py_buffer *prefix, Py_buffer *room, Py_ssize_t rows, PyObject *given) {
  Py_ssize_t width = PyTuple_Size(given);
  if (width < 1 || width > MOST_COLUMNS || rows < 0 || rows > block->len || block->len > INT32_MAX)
    return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "a block or columns out of bounds");
  Column *columns = PyMem_Calloc((size_t)width, sizeof(Column));
  if (!columns) return PyErr_NoMemory();
  PyObject *result = NULL;
  Py_ssize_t set = 0;
  while (set < width && set_column(&columns[set], PyTuple_GetItem(given, set), room, rows, set + 1 < width ? ',' : '\n'))
    set++;
  if (set == width) {
    int certain;
    Py_BEGIN_ALLOW_THREADS
    certain = fill(block->buf, (const char *)block->buf + block->len, prefix, rows, columns, (int)width);
    Py_END_ALLOW_THREADS
    result = certain ? counts(columns, width) : Py_NewRef(Py_None);
  }
  PyMem_Free(columns);
  return result;
}

static PyObject *scan_fill(PyObject *module, PyObject *arguments) {
  Py_buffer block, prefix, room;
  Py_ssize_t rows;
  PyObject *columns;
  (void)module;
  if (!PyArg_ParseTuple(arguments, "y*y*w*nO!", &block, &prefix, &room, &rows, &PyTuple_Type, &columns)) return NULL;
  PyObject *result = filled(&block, &prefix, &room, rows, columns);
  PyBuffer_Release(&block);
  PyBuffer_Release(&prefix);
  PyBuffer_Release(&room);
  return result;
}

static PyObject *scan_lines(PyObject *module, PyObject *given) {
  Py_buffer block;
  (void)module;
  if (PyObject_GetBuffer(given, &block, PyBUF_SIMPLE) < 0) return NULL;
  const char *at = block.buf, *end = at + block.len;
  Py_ssize_t count = 0;
  while (end - at >= 8) {
    uint64_t sums = 0; /* of each of 8 bytes, which hold 255 */
    for (int i = 0; i < 255 && end - at >= 8; i++, at += 8) {
      uint64_t other = load(at, end) ^ EACH('\n');
      sums += (~(((other & EACH(0x7F)) + EACH(0x7F)) | other) & EACH(0x80)) >> 7;
    }
    for (; sums; sums >>= 8) count += (Py_ssize_t)(sums & 0xFF);
  }
  for (; at < end; at++) count += *at == '\n';
  PyBuffer_Release(&block);
  return PyLong_FromSsize_t(count);
}

static PyMethodDef METHODS[] = {
  {"lines", scan_lines, METH_O, "Return how many lines end in a block."},
  {"fill", scan_fill, METH_VARARGS, "Fill `room` with the rows of a block; None when any is not certain."},
  {NULL, NULL, 0, NULL},
};

static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "scan", NULL, 0, METHODS, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_scan(void) { return PyModule_Create(&MODULE); }
