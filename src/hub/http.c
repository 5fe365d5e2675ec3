/* One GET at a time, by libcurl: sent on where that is safe, bounded, given up when nothing comes, and cancelled at once. */
#include "hub/library.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#ifdef HETERO_HAVE_CURL
#define HUB "https://huggingface.co"
#define MOST_HOPS 10
#define MOST_HEADERS (256 << 10) /* bytes of one answer's */
#define CONNECT_SECONDS 20
#define STALL_SECONDS 30 /* without a byte */
#define MOST_STALLS 4    /* for what is no file: headers, lists, errors */
#define LONGEST_WAIT 600 /* that a server may ask for */
#define NOT_SAID UINT64_MAX

struct ht_hub_client {
    const ht_hub_curl *curl;
    CURL *easy;
    CURLM *multi;
    char endpoint[512], origin[600], token[1025];
    int retries;
    long stall;
    bool answered; /* somebody has, so a name that is not found is no mistake */
    const ht_progress *progress;
    char label[160], shown[256];
    uint64_t done, total, done_before;
    double since;
};

/* What a transfer's callbacks need. */
typedef struct transfer {
    ht_hub_client *client;
    const ht_hub_request *request;
    ht_hub_answer *answer;
    size_t header_bytes;
    double last;   /* when something came */
    bool too_slow; /* it came, but a byte at a time */
    bool begun;
    ht_status status; /* what a callback failed with */
    ht_error *error;
    char why[CURL_ERROR_SIZE];
} transfer;

/* ---- who is told ------------------------------------------------------------------------------------------------------ */

void ht_hub_expect(ht_hub_client *client, const char *what, uint64_t done, uint64_t total) {
    snprintf(client->label, sizeof client->label, "%s", what);
    ht_make_printable(client->label);
    snprintf(client->shown, sizeof client->shown, "%s", client->label);
    client->done = client->done_before = done;
    client->total = total;
    client->since = ht_seconds();
}

ht_status ht_hub_advance(ht_hub_client *client, int64_t bytes, ht_error *error) {
    client->done = (uint64_t)((int64_t)client->done + bytes);
    const double now = ht_seconds(), passed = now - client->since;
    if (passed > 0.5 || client->done < client->done_before) { /* a rate of the last half second */
        char have[32], all[32], rate[32];
        const double more = client->done > client->done_before ? (double)(client->done - client->done_before) : 0;
        snprintf(client->shown, sizeof client->shown, "%s: %s of %s, %s/s", client->label,
                 ht_size_text(client->done, have), ht_size_text(client->total, all),
                 ht_size_text((uint64_t)(more / (passed > 0.5 ? passed : 0.5)), rate));
        client->since = now;
        client->done_before = client->done;
    }
    /* never all of it: a bar that is full goes, and the last byte is not the end of the work */
    const double total = client->total ? (double)client->total : 1;
    const double done = (double)client->done < total ? (double)client->done : total * 0.999999;
    return ht_progress_tell(client->progress, client->shown, client->total ? done : 0, total)
               ? HT_OK
               : ht_fail(error, HT_ERROR_CANCELLED,
                         "cancelled; what has come is kept, and the next pull goes on from there");
}

/* ---- addresses -------------------------------------------------------------------------------------------------------- */

/* A part of a URL; "" where there is none or it does not fit. */
static void url_part(const ht_hub_curl *curl, const CURLU *url, CURLUPart part, unsigned flags, char *out,
                     size_t capacity) {
    char *text = NULL;
    *out = '\0';
    if (curl->url_get(url, part, &text, flags) == CURLUE_OK && strlen(text) < capacity)
        memcpy(out, text, strlen(text) + 1);
    curl->free(text);
}

/* "https://host:443" of a URL, lower case. False: it is none, not of HTTP, or names a user. */
static bool origin_of(const ht_hub_curl *curl, const char *text, char *origin, size_t capacity) {
    char scheme[16], host[300], port[16];
    CURLU *url = curl->url();
    bool good = url && curl->url_set(url, CURLUPART_URL, text, CURLU_DISALLOW_USER) == CURLUE_OK;
    if (good) {
        url_part(curl, url, CURLUPART_SCHEME, 0, scheme, sizeof scheme);
        url_part(curl, url, CURLUPART_HOST, 0, host, sizeof host);
        url_part(curl, url, CURLUPART_PORT, CURLU_DEFAULT_PORT, port, sizeof port);
        good = (!strcasecmp(scheme, "http") || !strcasecmp(scheme, "https")) && *host && *port;
    }
    if (good) {
        snprintf(origin, capacity, "%s://%s:%s", scheme, host, port);
        for (char *c = origin; *c; c++)
            *c = (char)tolower((unsigned char)*c);
    }
    curl->url_cleanup(url);
    return good;
}

static bool is_loopback(const char *origin) {
    const char *host = strstr(origin, "://") + 3;
    const bool number = host[strspn(host, "0123456789.")] == ':'; /* and no name such as 127.example.org */
    return !strncmp(host, "localhost:", 10) || (number && !strncmp(host, "127.", 4)) || !strncmp(host, "[::1]:", 6);
}

static bool is_private(const char *origin) { /* nobody else reads what is sent there */
    return !strncmp(origin, "https:", 6) || is_loopback(origin);
}

/* May a server at `from` send us to `to`? Never from HTTPS to HTTP; to HTTP only inside of one host, or of this machine. */
static bool may_follow(const char *from, const char *to) {
    if (!strncmp(to, "https:", 6))
        return true;
    return !strncmp(from, "http:", 5) && (!strcmp(from, to) || (is_loopback(from) && is_loopback(to)));
}

ht_status ht_hub_follow(const ht_hub_client *client, const char *what, const char *location, ht_text *url,
                        ht_error *error) {
    const ht_hub_curl *curl = client->curl;
    char from[600], to[600], *text = NULL;
    CURLU *where = curl->url();
    bool good = where && *location && curl->url_set(where, CURLUPART_URL, url->data, 0) == CURLUE_OK &&
                curl->url_set(where, CURLUPART_URL, location, 0) == CURLUE_OK &&
                curl->url_get(where, CURLUPART_URL, &text, 0) == CURLUE_OK;
    good = good && origin_of(curl, url->data, from, sizeof from) && origin_of(curl, text, to, sizeof to);
    ht_status status = HT_OK;
    if (!good)
        status = ht_fail(error, HT_ERROR_FORMAT, "%s: the server sends us on to no address", what);
    else if (!may_follow(from, to))
        status = ht_fail(error, HT_ERROR_FORMAT, "%s: %s sends us on to %s, which is not followed: only https is", what,
                         from, to);
    url->bytes = 0;
    if (!status)
        status = ht_text_append(url, text, strlen(text), error);
    curl->free(text);
    curl->url_cleanup(where);
    return status;
}

/* ---- answers ---------------------------------------------------------------------------------------------------------- */

static bool digits_of(const char *text, uint64_t *out) {
    uint64_t n = 0;
    const char *c = text;
    for (; isdigit((unsigned char)*c) && n < NOT_SAID / 10 - 1; c++)
        n = n * 10 + (uint64_t)(*c - '0');
    if (c == text || isdigit((unsigned char)*c))
        return false;
    *out = n;
    return true;
}

/* The next page of Link: <URL>; rel="next", ... One that does not fit is no address: the list must not seem to end. */
static void read_link(const char *value, char *next, size_t capacity) {
    for (const char *open = strchr(value, '<'); open; open = strchr(open + 1, '<')) {
        const char *close = strchr(open, '>');
        const char *comma = close ? strchr(close, ',') : NULL;
        const char *rel = close ? strstr(close, "rel=\"next\"") : NULL;
        if (rel && (!comma || rel < comma)) {
            const size_t n = (size_t)(close - open) - 1;
            snprintf(next, capacity, "%.*s", n < capacity ? (int)n : 7, n < capacity ? open + 1 : "none://");
            return;
        }
    }
}

static void read_range(const char *value, ht_hub_answer *answer) {
    const char *slash = strchr(value, '/');
    if (strncasecmp(value, "bytes ", 6) != 0)
        return;
    digits_of(value + 6, &answer->range_begin);
    if (slash)
        digits_of(slash + 1, &answer->range_of);
}

/* `value` is NUL-terminated. */
static void read_header(ht_hub_answer *answer, const char *name, const char *value) {
    const struct {
        const char *name;
        char *out;
        size_t capacity;
    } texts[] = {{"etag", answer->etag, sizeof answer->etag},
                 {"location", answer->location, sizeof answer->location},
                 {"x-linked-etag", answer->linked_etag, sizeof answer->linked_etag},
                 {"x-error-code", answer->error_code, sizeof answer->error_code}};
    for (size_t i = 0; i < HT_COUNT(texts); i++)
        if (!strcasecmp(name, texts[i].name) && strlen(value) < texts[i].capacity)
            memcpy(texts[i].out, value, strlen(value) + 1);
    if (!strcasecmp(name, "content-length"))
        digits_of(value, &answer->length);
    else if (!strcasecmp(name, "x-linked-size"))
        digits_of(value, &answer->linked_size);
    else if (!strcasecmp(name, "content-range"))
        read_range(value, answer);
    else if (!strcasecmp(name, "link"))
        read_link(value, answer->next, sizeof answer->next);
}

/* Of one hop: what the hub said of the file stays while a store's answer comes. */
static void forget_hop(ht_hub_answer *answer) {
    answer->code = 0;
    answer->length = answer->range_begin = answer->range_of = NOT_SAID;
    answer->retry_after = 0;
    *answer->etag = *answer->next = *answer->location = '\0';
}

static size_t on_header(char *data, size_t one, size_t bytes, void *user) {
    transfer *t = user;
    char line[8400];
    t->header_bytes += bytes;
    t->last = ht_seconds();
    if (t->header_bytes > MOST_HEADERS) {
        t->status = ht_fail(t->error, HT_ERROR_FORMAT, "%s: the server's headers do not end", t->request->what);
        return 0;
    }
    if (bytes >= sizeof line)
        return bytes;
    memcpy(line, data, bytes);
    line[bytes] = '\0';
    if (!strncmp(line, "HTTP/", 5)) { /* those of a proxy, or of "100 Continue", came before */
        forget_hop(t->answer);
        return bytes;
    }
    char *value = strchr(line, ':');
    if (!value)
        return bytes;
    *value++ = '\0';
    value += strspn(value, " \t");
    for (size_t n = strlen(value); n && isspace((unsigned char)value[n - 1]); n--)
        value[n - 1] = '\0';
    read_header(t->answer, line, value);
    return bytes;
}

static bool is_good(long code) {
    return code == 200 || code == 206;
}

static ht_status begin(transfer *t) {
    t->client->curl->easy_getinfo(t->client->easy, CURLINFO_RESPONSE_CODE, &t->answer->code);
    t->client->answered = true;
    t->begun = true;
    return is_good(t->answer->code) && t->request->begin ? t->request->begin(t->request->user, t->answer, t->error)
                                                         : HT_OK;
}

static size_t on_body(char *data, size_t one, size_t bytes, void *user) {
    transfer *t = user;
    t->last = ht_seconds();
    if (!t->begun)
        t->status = begin(t);
    if (!t->status && !is_good(t->answer->code))
        return bytes < CURL_MAX_WRITE_SIZE && t->answer->length < MOST_HEADERS
                   ? bytes
                   : 0; /* what an error says, nobody reads */
    if (!t->status)
        t->status = t->request->take(t->request->user, data, bytes, t->error);
    return t->status ? 0 : bytes;
}

/* ---- one hop ---------------------------------------------------------------------------------------------------------- */

static CURLcode run(transfer *t) {
    const ht_hub_curl *curl = t->client->curl;
    int running = 1, left;
    CURLcode code = CURLE_FAILED_INIT;
    if (curl->multi_add_handle(t->client->multi, t->client->easy) != CURLM_OK)
        return code;
    const double stall = (double)t->client->stall, first = t->last = ht_seconds();
    while (running && !t->status) {
        if (curl->multi_perform(t->client->multi, &running) != CURLM_OK)
            break;
        const bool is_file = t->begun && is_good(t->answer->code) && !t->request->short_one;
        t->too_slow = running && !is_file && ht_seconds() - first > MOST_STALLS * stall;
        if (t->too_slow ||
            (running && ht_seconds() - t->last > stall)) { /* libcurl's own limit looks at five seconds */
            code = CURLE_OPERATION_TIMEDOUT;
            break;
        }
        if (!t->status)
            t->status = ht_hub_advance(t->client, 0, t->error);
        if (running && !t->status)
            curl->multi_poll(t->client->multi, NULL, 0, 100, NULL);
    }
    for (CURLMsg *message; (message = curl->multi_info_read(t->client->multi, &left));)
        if (message->msg == CURLMSG_DONE)
            code = message->data.result;
    curl->multi_remove_handle(t->client->multi, t->client->easy);
    return code;
}

static struct curl_slist *add_header(const ht_hub_curl *curl, struct curl_slist *list, bool *good, const char *format,
                                     const char *value) {
    char line[1400];
    *good = *good && snprintf(line, sizeof line, format, value) < (int)sizeof line;
    struct curl_slist *longer = *good ? curl->slist_append(list, line) : NULL;
    *good = longer != NULL;
    return longer ? longer : list;
}

/* The options of a request to `url`, whose origin is given. */
static bool set_options(transfer *t, const char *url, const char *origin, struct curl_slist *headers) {
    const ht_hub_client *client = t->client;
    const ht_hub_curl *curl = client->curl;
    CURL *easy = client->easy;
    const char *bundle = getenv("CURL_CA_BUNDLE"), *file = getenv("SSL_CERT_FILE");
    bool good = true;
    char range[40];
    curl->easy_reset(easy);
#define SET(option, value) good = good && curl->easy_setopt(easy, CURLOPT_##option, value) == CURLE_OK
    SET(URL, url);
#if LIBCURL_VERSION_NUM >= 0x075500
    SET(PROTOCOLS_STR, "http,https");
#else
    SET(PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
    SET(NOSIGNAL, 1L);
    SET(FOLLOWLOCATION, 0L);
    SET(HTTPHEADER, headers);
    SET(ERRORBUFFER, t->why);
    SET(HEADERFUNCTION, on_header);
    SET(HEADERDATA, t);
    SET(WRITEFUNCTION, on_body);
    SET(WRITEDATA, t);
    SET(BUFFERSIZE, 256L << 10);
    SET(CONNECTTIMEOUT, (long)CONNECT_SECONDS);
    SET(HTTP09_ALLOWED, 0L);
    if (is_loopback(origin)) /* which a proxy's would be its own */
        SET(PROXY, "");
    if ((bundle && *bundle) || (file && *file)) /* as the command curl has it */
        SET(CAINFO, bundle && *bundle ? bundle : file);
    if (t->request->from) {
        snprintf(range, sizeof range, "%llu-", (unsigned long long)t->request->from);
        SET(RANGE, range); /* copied */
    }
#undef SET
    return good;
}

/* From `url`, without following. */
static CURLcode hop(transfer *t, const char *url) {
    const ht_hub_client *client = t->client;
    const ht_hub_curl *curl = client->curl;
    char origin[600];
    bool good = origin_of(curl, url, origin, sizeof origin);
    struct curl_slist *headers = add_header(curl, NULL, &good, "User-Agent: hetero/%s", ht_version());
    if (good && *client->token && !strcmp(origin, client->origin) && is_private(origin))
        headers = add_header(curl, headers, &good, "Authorization: Bearer %s", client->token);
    if (good && t->request->from && t->request->if_range && *t->request->if_range)
        headers = add_header(curl, headers, &good, "If-Range: %s", t->request->if_range);
    t->begun = false;
    t->header_bytes = 0;
    *t->why = '\0';
    forget_hop(t->answer);
    CURLcode code = good && set_options(t, url, origin, headers) ? run(t) : CURLE_FAILED_INIT;
    if (code == CURLE_OK && !t->begun && !t->status)
        t->status = begin(t); /* without a body */
    else if (!t->begun)
        curl->easy_getinfo(client->easy, CURLINFO_RESPONSE_CODE, &t->answer->code);
    curl_off_t seconds = 0;
    if (curl->easy_getinfo(client->easy, CURLINFO_RETRY_AFTER, &seconds) == CURLE_OK)
        t->answer->retry_after = (double)seconds;
    curl->slist_free_all(headers);
    return code;
}

/* ---- what became of it ------------------------------------------------------------------------------------------------ */

static bool is_transient(CURLcode code) {
    static const CURLcode codes[] = {CURLE_COULDNT_RESOLVE_HOST, CURLE_COULDNT_RESOLVE_PROXY,
                                     CURLE_COULDNT_CONNECT,      CURLE_PARTIAL_FILE,
                                     CURLE_OPERATION_TIMEDOUT,   CURLE_SSL_CONNECT_ERROR,
                                     CURLE_GOT_NOTHING,          CURLE_SEND_ERROR,
                                     CURLE_RECV_ERROR,           CURLE_HTTP2,
                                     CURLE_HTTP2_STREAM,         CURLE_WEIRD_SERVER_REPLY};
    for (size_t i = 0; i < HT_COUNT(codes); i++)
        if (code == codes[i])
            return true;
    return false;
}

/* The answer is neither the file nor an address. */
static ht_hub_outcome refused(const ht_hub_client *client, const ht_hub_request *request, const ht_hub_answer *answer,
                              ht_error *error) {
    const long code = answer->code;
    const bool token = *client->token != '\0';
    const char *host = client->endpoint;
    if (code == 429 || code == 408 || code >= 500) {
        ht_fail(error, HT_ERROR_IO, "%s: the server answers %ld%s", request->what, code,
                code == 429 ? " (too many requests)" : "");
        return code == 501 || code == 505 ? HT_HUB_FAILED : HT_HUB_AGAIN;
    }
    if (!strcasecmp(answer->error_code, "GatedRepo") || code == 403)
        ht_fail(error, HT_ERROR_ARGUMENT,
                "%s: access is refused (%ld): if the model is gated, accept its conditions at %s/%s, %s", request->what,
                code, host, request->page,
                token ? "with the account whose token is used here" : "then put a token of that account into HF_TOKEN");
    else if (code == 401)
        ht_fail(error, HT_ERROR_ARGUMENT,
                token ? "%s: %s does not take the token (401), or there is no such model"
                      : "%s: %s answers 401: there is no such model, or it is private and needs a token in HF_TOKEN",
                request->what, host);
    else if (!strcasecmp(answer->error_code, "RevisionNotFound"))
        ht_fail(error, HT_ERROR_ARGUMENT, "%s: %s has no such revision of it (404)", request->what, host);
    else if (code == 404)
        ht_fail(error, HT_ERROR_ARGUMENT, "%s: %s has no such thing (404)%s", request->what, host,
                token ? "" : "; a private model needs a token in HF_TOKEN");
    else
        ht_fail(error, code == 416 ? HT_ERROR_FORMAT : HT_ERROR_IO, "%s: the server answers %ld", request->what, code);
    return HT_HUB_FAILED;
}

/* The texts of libcurl's errors name hosts, ports and libraries, never headers. */
static ht_hub_outcome broken(transfer *t, CURLcode code, ht_error *error) {
    const char *why = *t->why ? t->why : t->client->curl->easy_strerror(code);
    if (t->too_slow)
        ht_fail(error, HT_ERROR_IO, "%s: the answer took longer than %ld s", t->request->what,
                MOST_STALLS * t->client->stall);
    else if (code == CURLE_OPERATION_TIMEDOUT && !*t->why)
        ht_fail(error, HT_ERROR_IO, "%s: nothing came for %ld s", t->request->what, t->client->stall);
    else
        ht_fail(error, HT_ERROR_IO, "%s: %s", t->request->what, why);
    return is_transient(code) ? HT_HUB_AGAIN : HT_HUB_FAILED;
}

ht_hub_outcome ht_hub_get(ht_hub_client *client, const ht_hub_request *request, ht_hub_answer *answer,
                          ht_error *error) {
    transfer t = {.client = client, .request = request, .answer = answer, .error = error};
    ht_text url = {0};
    *answer = (ht_hub_answer){.linked_size = NOT_SAID};
    ht_status status = ht_text_append(&url, request->url, strlen(request->url), error);
    ht_hub_outcome outcome = HT_HUB_FAILED;
    for (int hops = 0; !status; hops++) {
        const CURLcode code = hop(&t, url.data);
        const bool sent_on = answer->code >= 300 && answer->code < 400 && answer->code != 304;
        if (t.status)
            break;
        if (code != CURLE_OK && !((sent_on || !is_good(answer->code)) && t.begun)) {
            outcome = broken(&t, code, error);
            break;
        }
        if (!sent_on) {
            outcome = is_good(answer->code) ? HT_HUB_DONE : refused(client, request, answer, error);
            break;
        }
        status = hops == MOST_HOPS
                     ? ht_fail(error, HT_ERROR_FORMAT, "%s: the server sends us on without end", request->what)
                     : ht_hub_follow(client, request->what, answer->location, &url, error);
    }
    ht_text_free(&url);
    return outcome;
}

ht_status ht_hub_pause(ht_hub_client *client, int *failures, const ht_hub_answer *answer, ht_error *error) {
    const ht_error why = *error;
    uint8_t random = 128;
    const int most = client->answered ? client->retries : ht_min_size((size_t)client->retries, 1) != 0;
    if (*failures >= most)
        return why.status;
    if (answer->retry_after > LONGEST_WAIT) {
        ht_fail(error, HT_ERROR_IO, "%.400s; it asks to wait %.0f s", why.text, answer->retry_after);
        return HT_ERROR_IO;
    }
    ht_os_random(&random, sizeof random); /* or all that were cut off together come back together */
    double seconds = 0.5 * (double)(1 << ht_min_size((size_t)*failures, 6)) * (0.75 + random / 512.0);
    if (answer->retry_after > 0)
        seconds = answer->retry_after;
    ++*failures;
    ht_log(HT_LOG_INFO, "%s; once more in %.1f s", why.text, seconds);
    for (const double end = ht_seconds() + seconds; ht_seconds() < end;) {
        ht_status status = ht_hub_advance(client, 0, error);
        if (status)
            return status;
        ht_os_nap(50000000);
    }
    return HT_OK;
}

/* ---- opening ---------------------------------------------------------------------------------------------------------- */

/* HF_TOKEN, or the file that `hf auth login` wrote. The errors never have a part of it. */
static ht_status read_token(ht_hub_client *client, ht_error *error) {
    const char *value = getenv("HF_TOKEN");
    char path[HT_PATH_BYTES] = "", text[sizeof client->token + 64];
    if (!value || !*value)
        value = getenv("HUGGING_FACE_HUB_TOKEN");
    if (value && *value) {
        if ((size_t)snprintf(text, sizeof text, "%s", value) >= sizeof text)
            return ht_fail(error, HT_ERROR_ARGUMENT, "HF_TOKEN is too long to be a token");
    } else {
        if (!ht_hub_from_environment("HF_TOKEN_PATH", path) && ht_hub_home("token", path, NULL))
            return HT_OK;
        FILE *opened = ht_os_open(path, "rb");
        const size_t n = opened ? fread(text, 1, sizeof text - 1, opened) : 0;
        if (opened)
            fclose(opened);
        text[n] = '\0';
    }
    char *begin = text + strspn(text, " \t\r\n");
    const size_t n = strcspn(begin, " \t\r\n");
    bool good = n < sizeof client->token && !begin[n + strspn(begin + n, " \t\r\n")];
    for (size_t i = 0; i < n; i++)
        good = good && begin[i] > 0x20 && begin[i] < 0x7f;
    if (!good)
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s holds no token: it must be one word of ASCII",
                       *path ? path : "HF_TOKEN");
    memcpy(client->token, begin, n);
    client->token[n] = '\0';
    return HT_OK;
}

static ht_status read_endpoint(ht_hub_client *client, ht_error *error) {
    const char *value = getenv("HF_ENDPOINT");
    if (!value || !*value)
        value = HUB;
    size_t n = strlen(value);
    while (n && value[n - 1] == '/')
        n--;
    if (n >= sizeof client->endpoint || strcspn(value, "?#") < n)
        return ht_fail(error, HT_ERROR_ARGUMENT, "HF_ENDPOINT is no address such as " HUB);
    memcpy(client->endpoint, value, n);
    client->endpoint[n] = '\0';
    if (!origin_of(client->curl, client->endpoint, client->origin, sizeof client->origin))
        return ht_fail(error, HT_ERROR_ARGUMENT, "HF_ENDPOINT is no address such as " HUB ", without a user's name");
    return HT_OK;
}

ht_status ht_hub_client_open(int retries, const ht_progress *progress, ht_hub_client **out, ht_error *error) {
    const ht_hub_curl *curl;
    ht_hub_client *client = NULL;
    uint64_t stall;
    ht_status status = ht_hub_curl_open(&curl, error);
    if (!status)
        status = ht_alloc((void **)&client, 1, sizeof *client, "downloads", error);
    if (status)
        return status;
    client->curl = curl;
    client->retries = retries;
    client->progress = progress;
    const char *seconds = getenv("HF_HUB_DOWNLOAD_TIMEOUT");
    client->stall = seconds && digits_of(seconds, &stall) && stall && stall < 86400 ? (long)stall : STALL_SECONDS;
    client->easy = curl->easy_init();
    client->multi = curl->multi_init();
    if (!client->easy || !client->multi)
        status = ht_fail(error, HT_ERROR_MEMORY, "out of memory: downloads");
    if (!status)
        status = read_endpoint(client, error);
    if (!status)
        status = read_token(client, error);
    if (status)
        ht_hub_client_close(client);
    else
        *out = client;
    return status;
}

void ht_hub_client_close(ht_hub_client *client) {
    if (!client)
        return;
    if (client->easy)
        client->curl->easy_cleanup(client->easy);
    if (client->multi)
        client->curl->multi_cleanup(client->multi);
    memset(client->token, 0, sizeof client->token);
    free(client);
}

const char *ht_hub_endpoint(const ht_hub_client *client) {
    return client->endpoint;
}
#else
ht_status ht_hub_client_open(int retries, const ht_progress *progress, ht_hub_client **client, ht_error *error) {
    return ht_fail(error, HT_ERROR_UNSUPPORTED, HT_HUB_NOT_BUILT);
}
void ht_hub_client_close(ht_hub_client *client) {}
const char *ht_hub_endpoint(const ht_hub_client *client) {
    return "";
}
ht_hub_outcome ht_hub_get(ht_hub_client *client, const ht_hub_request *request, ht_hub_answer *answer,
                          ht_error *error) {
    return HT_HUB_FAILED;
}
ht_status ht_hub_follow(const ht_hub_client *client, const char *what, const char *location, ht_text *url,
                        ht_error *error) {
    return HT_ERROR_UNSUPPORTED;
}
ht_status ht_hub_pause(ht_hub_client *client, int *failures, const ht_hub_answer *answer, ht_error *error) {
    return HT_ERROR_UNSUPPORTED;
}
void ht_hub_expect(ht_hub_client *client, const char *what, uint64_t done, uint64_t total) {}
ht_status ht_hub_advance(ht_hub_client *client, int64_t bytes, ht_error *error) {
    return HT_ERROR_UNSUPPORTED;
}
#endif
