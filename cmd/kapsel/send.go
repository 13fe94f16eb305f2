package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/net/http/httpguts"

	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/signature"
)

const (
	maxSendBytes    = 10 << 20
	maxReceiptBytes = 64 << 10
	sendTimeout     = 30 * time.Second
)

func newSend() *cobra.Command {
	var dataDir, preset, secret, ingestURL, signedURL, event, deliveryID, contentType string
	cmd := &cobra.Command{
		Use:   "send FILE",
		Short: "Sign a file as a provider does, and post it as a webhook",
		Long: `Signs the file's bytes as the provider of --preset does, posts them, and prints the answer: the receipt, what a
handshake asked for, or a mere 204 where the provider wants no more.
FILE - reads standard input. Without --ingest-url and --secret it posts to the endpoint of kapsel dev.
Where the provider signs with a private key (discord, sendgrid), --secret is that key. Where the signature or its time
stands in the body (adyen, linear, microsoft-graph), the file must have the member, whatever it holds.`,
		Example: `  kapsel send --preset github push.json --event push
  kapsel send --preset twilio --content-type application/x-www-form-urlencoded sms.txt --ingest-url https://… --secret …`,
		Args: oneArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			body, err := readBounded(cmd.InOrStdin(), args[0], maxSendBytes)
			if err != nil {
				return err
			}
			if ingestURL == "" || secret == "" {
				d, err := devDemo(dataDir)
				if err != nil {
					return fmt.Errorf("--ingest-url and --secret are needed, but for kapsel dev: %w", err)
				}
				ingestURL, secret = cmp.Or(ingestURL, d.IngestURL), cmp.Or(secret, d.SigningSecret)
			}
			if u, err := url.Parse(ingestURL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
				return usageError(fmt.Errorf("--ingest-url %q is not the address of an endpoint, such as https://kapsel.example.com/ingest/ep_…", printable(ingestURL)))
			}
			if deliveryID == "" {
				deliveryID = id.New().String()
			}
			signed, err := signature.SignRequest(signature.Config{Preset: preset}, []byte(secret), signature.Request{
				Method: http.MethodPost, URL: cmp.Or(signedURL, ingestURL), Header: http.Header{"Content-Type": {contentType}}, Body: body,
			}, time.Now(), deliveryID)
			if err != nil {
				return usageError(fmt.Errorf("--preset %s: %w", preset, err))
			}
			if p, found := signature.Lookup(preset); found && p.EventType.Header != "" && event != "" {
				if !httpguts.ValidHeaderFieldValue(event) {
					return usageError(fmt.Errorf("--event %q cannot stand in a header: it needs plain text of one line", printable(event)))
				}
				signed.Header.Set(p.EventType.Header, event)
			}
			if _, query, found := strings.Cut(signed.URL, "?"); found { // some providers add to it
				address, _, _ := strings.Cut(ingestURL, "?")
				ingestURL = address + "?" + query
			}
			return post(cmd, ingestURL, signed.Header, signed.Body)
		},
	}
	cmd.Flags().StringVar(&dataDir, "data-dir", "", "data directory of kapsel dev, if not the usual one")
	cmd.Flags().StringVar(&preset, "preset", signature.PresetGitHub, "whose signature to make")
	cmd.Flags().StringVar(&ingestURL, "ingest-url", "", "the endpoint's address")
	cmd.Flags().StringVar(&signedURL, "signed-url", "", "the endpoint's signed_url, where the provider signs the URL (default --ingest-url)")
	cmd.Flags().StringVar(&secret, "secret", "", "the endpoint's signing secret; better in KAPSEL_SECRET")
	cmd.Flags().StringVar(&event, "event", "ping", "event type, where the provider sends it in a header")
	cmd.Flags().StringVar(&deliveryID, "id", "", "the provider's id of this delivery (default a new one)")
	cmd.Flags().StringVar(&contentType, "content-type", "application/json", "Content-Type of the file")
	return cmd
}

func post(cmd *cobra.Command, url string, header http.Header, body []byte) error {
	request, err := http.NewRequestWithContext(cmd.Context(), http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return usageError(fmt.Errorf("--ingest-url: %w", err))
	}
	request.Header = header
	response, err := (&http.Client{Timeout: sendTimeout, CheckRedirect: noRedirect}).Do(request)
	if err != nil {
		return fmt.Errorf("post webhook: %w", err)
	}
	defer response.Body.Close()
	receipt, err := io.ReadAll(io.LimitReader(response.Body, maxReceiptBytes))
	if err != nil {
		return fmt.Errorf("read receipt: %w", err)
	}
	receipt = bytes.TrimSpace(receipt)
	if response.StatusCode/100 != 2 { // which of them says that it was taken is the preset's
		return fmt.Errorf("not taken in: %s: %s", response.Status, receipt)
	}
	if len(receipt) == 0 {
		receipt = []byte(response.Status)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", receipt)
	return err
}
