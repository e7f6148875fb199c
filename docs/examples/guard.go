// A complete HTTP server that accepts requests with a valid key of Keyledger. Go 1.21, no packages.
// GUARD_TOKEN is the token of a key with the scope api-keys:verify:
//
//	GUARD_TOKEN=… PORT=3000 go run guard.go
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

const longestToken = 256

// Key is what Keyledger knows of the key of a request.
type Key struct {
	Valid     bool   `json:"valid"`
	Code      string `json:"code"`
	KeyID     string `json:"key_id"`
	Workspace string `json:"workspace"`
}

// Refused is the answer to a request that is refused.
type Refused struct {
	status  int
	detail  string
	headers map[string]string
}

func (refused *Refused) Error() string { return refused.detail }

// Guard asks Keyledger about each request. Nothing is cached.
type Guard struct {
	url    string
	token  string
	client *http.Client
}

// NewGuard returns a guard that keeps connections to the Keyledger at url.
func NewGuard(url, token string) *Guard {
	return &Guard{
		url:   strings.TrimRight(url, "/") + "/v1/verify",
		token: token,
		client: &http.Client{
			Timeout: 2 * time.Second,
			// The idle timeout is shorter than Keyledger's (KEYLEDGER_KEEP_ALIVE_SECONDS, 75 by default).
			Transport: &http.Transport{
				MaxIdleConnsPerHost: 32,
				MaxConnsPerHost:     32,
				IdleConnTimeout:     4 * time.Second,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error {
				return errors.New("Keyledger does not redirect")
			},
		},
	}
}

// KeyOf returns the key of a request if it has the scopes, and an error *Refused otherwise.
func (guard *Guard) KeyOf(request *http.Request, scopes ...string) (*Key, error) {
	token, err := presentedToken(request.Header)
	if err != nil {
		return nil, err
	}
	key, err := guard.verdict(request.Context(), token, scopes)
	if err != nil {
		// The log has the reason, and never a token.
		log.Printf("Keyledger cannot be asked: %v", err)
		headers := map[string]string{"Retry-After": "1"}
		return nil, &Refused{503, "keys cannot be verified at this moment", headers}
	}
	switch key.Code {
	case "VALID":
		return key, nil
	case "INSUFFICIENT_SCOPE":
		scope := strings.Join(scopes, " ")
		headers := challenge(`error="insufficient_scope"`, fmt.Sprintf(`scope="%s"`, scope))
		return nil, &Refused{403, "this needs a key with the scope " + scope, headers}
	case "REVOKED":
		return nil, badToken("the key was revoked")
	case "EXPIRED":
		return nil, badToken("the key has expired")
	default:
		return nil, badToken("the key is not known here")
	}
}

func (guard *Guard) verdict(ctx context.Context, token string, scopes []string) (*Key, error) {
	body, err := json.Marshal(map[string]any{"token": token, "scopes": scopes})
	if err != nil {
		return nil, errors.New("the question cannot be written")
	}
	question, err := http.NewRequestWithContext(ctx, http.MethodPost, guard.url, bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("the address is not valid")
	}
	question.Header.Set("Authorization", "Bearer "+guard.token)
	question.Header.Set("Content-Type", "application/json")
	answer, err := guard.client.Do(question)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answered %d", answer.StatusCode)
	}
	var key Key
	if err := json.NewDecoder(answer.Body).Decode(&key); err != nil {
		return nil, errors.New("it answered no JSON")
	}
	// Whatever is not a clear yes or no is an error.
	switch key.Code {
	case "VALID", "MALFORMED", "NOT_FOUND", "REVOKED", "EXPIRED", "INSUFFICIENT_SCOPE":
		if key.Valid == (key.Code == "VALID") {
			return &key, nil
		}
	}
	return nil, errors.New("it answered no verdict")
}

func presentedToken(header http.Header) (string, error) {
	tokens := map[string]bool{}
	for _, value := range header.Values("X-API-Key") {
		tokens[strings.TrimSpace(value)] = true
	}
	for _, value := range header.Values("Authorization") {
		scheme, token, _ := strings.Cut(strings.TrimSpace(value), " ")
		if !strings.EqualFold(scheme, "bearer") {
			return "", &Refused{401, "write Authorization: Bearer TOKEN", challenge()}
		}
		tokens[strings.TrimSpace(token)] = true
	}
	if len(tokens) > 1 {
		return "", badToken("two different tokens were presented")
	}
	for token := range tokens {
		if len(token) > longestToken {
			return "", badToken("the key is not known here")
		}
		return token, nil
	}
	return "", &Refused{401, "present a token", challenge()}
}

func badToken(why string) *Refused {
	description := fmt.Sprintf(`error_description="%s"`, why)
	return &Refused{401, why, challenge(`error="invalid_token"`, description)}
}

func challenge(parameters ...string) map[string]string {
	written := append([]string{`Bearer realm="api"`}, parameters...)
	return map[string]string{"WWW-Authenticate": strings.Join(written, ", ")}
}

func send(response http.ResponseWriter, status int, body map[string]string) {
	response.Header().Set("Content-Type", "application/json")
	response.Header().Set("Cache-Control", "no-store")
	response.WriteHeader(status)
	if err := json.NewEncoder(response).Encode(body); err != nil {
		log.Printf("the answer was not sent: %v", err)
	}
}

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func main() {
	token := os.Getenv("GUARD_TOKEN")
	if token == "" {
		log.Fatal("Set GUARD_TOKEN.")
	}
	guard := NewGuard(setting("GUARD_KEYLEDGER", "http://127.0.0.1:8080"), token)
	http.HandleFunc("/tools", func(response http.ResponseWriter, request *http.Request) {
		key, err := guard.KeyOf(request, "mcp:read")
		var refused *Refused
		if errors.As(err, &refused) {
			for name, value := range refused.headers {
				response.Header().Set(name, value)
			}
			send(response, refused.status, map[string]string{"detail": refused.detail})
			return
		}
		send(response, http.StatusOK, map[string]string{"key_id": key.KeyID, "workspace": key.Workspace})
	})
	listener, err := net.Listen("tcp", "127.0.0.1:"+setting("PORT", "3000"))
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("listening on http://%s", listener.Addr())
	log.Fatal(http.Serve(listener, nil))
}
