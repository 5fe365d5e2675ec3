/* Properties of characters come from utf8proc; what Python calls white space is a list of its own. */
#include "text/template/characters.h"

#include <utf8proc.h>

bool tpl_is_space(int32_t c) {
    return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool tpl_is_printable(int32_t c) {
    if (c < 0x7f)
        return c >= 0x20;
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return false;
    default:
        return true;
    }
}

bool tpl_is_upper(int32_t c) {
    return c >= 0 && (utf8proc_category(c) == UTF8PROC_CATEGORY_LU || utf8proc_category(c) == UTF8PROC_CATEGORY_LT);
}

bool tpl_is_lower(int32_t c) {
    return c >= 0 && utf8proc_category(c) == UTF8PROC_CATEGORY_LL;
}

bool tpl_is_letter(int32_t c) {
    return c >= 0 && utf8proc_category(c) >= UTF8PROC_CATEGORY_LU && utf8proc_category(c) <= UTF8PROC_CATEGORY_LO;
}

bool tpl_is_digit(int32_t c) {
    return c >= 0 && utf8proc_category(c) == UTF8PROC_CATEGORY_ND;
}

int32_t tpl_upper(int32_t c) {
    return c < 0 ? c : utf8proc_toupper(c);
}

int32_t tpl_lower(int32_t c) {
    return c < 0 ? c : utf8proc_tolower(c);
}

int32_t tpl_title(int32_t c) {
    return c < 0 ? c : utf8proc_totitle(c);
}

size_t tpl_space_before(const char *text, size_t bytes) {
    size_t at = 0, used;
    for (; at < bytes; at += used)
        if (!tpl_is_space(ht_utf8_next(text + at, bytes - at, &used)))
            break;
    return at;
}

size_t tpl_character_before(const char *text, size_t at) {
    size_t from = at - 1, used;
    while (from > 0 && at - from < 4 && ((unsigned char)text[from] & 0xc0) == 0x80)
        from--;
    const bool valid = ht_utf8_next(text + from, at - from, &used) >= 0 && used == at - from;
    return valid ? from : at - 1;
}

size_t tpl_without_space_after(const char *text, size_t bytes) {
    size_t used;
    while (bytes > 0) {
        const size_t from = tpl_character_before(text, bytes);
        if (!tpl_is_space(ht_utf8_next(text + from, bytes - from, &used)))
            break;
        bytes = from;
    }
    return bytes;
}

size_t tpl_write_character(char out[4], int32_t c) {
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

size_t tpl_count_characters(const char *text, size_t bytes) {
    size_t n = 0;
    for (size_t at = 0, used; at < bytes; at += used, n++)
        (void)ht_utf8_next(text + at, bytes - at, &used);
    return n;
}
