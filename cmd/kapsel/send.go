package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/signature"
)

const (
	maxSendBytes    = 10 << 20
	maxReceiptBytes = 64 << 10
	sendTimeout     = 30 * time.Second
)

func newSend() *cobra.Command {
	var flags clientFlags
	var preset, secret, ingestURL, signedURL, event, deliveryID, contentType string
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
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			body, err := readBounded(cmd.InOrStdin(), args[0], maxSendBytes)
			if err != nil {
				return err
			}
			if ingestURL == "" || secret == "" {
				d, err := flags.demo()
				if err != nil {
					return err
				}
				if ingestURL == "" {
					ingestURL = d.URL + "/ingest/" + d.EndpointID
				}
				if secret == "" {
					secret = d.SigningSecret
				}
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
				signed.Header.Set(p.EventType.Header, event)
			}
			if _, query, found := strings.Cut(signed.URL, "?"); found { // some providers add to it
				address, _, _ := strings.Cut(ingestURL, "?")
				ingestURL = address + "?" + query
			}
			return post(cmd, ingestURL, signed.Header, signed.Body)
		},
	}
	flags.add(cmd.Flags())
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
	response, err := (&http.Client{Timeout: sendTimeout}).Do(request)
	if err != nil {
		return fmt.Errorf("post webhook: %w: is the server running?", err)
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

// readBounded reads a file, or standard input for "-", of at most that many bytes.
func readBounded(stdin io.Reader, path string, maxBytes int64) ([]byte, error) {
	source := stdin
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, usageError(err)
		}
		defer file.Close()
		source = file
	}
	data, err := io.ReadAll(io.LimitReader(source, maxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if int64(len(data)) > maxBytes {
		return nil, usageError(fmt.Errorf("%s is longer than %d bytes", path, maxBytes))
	}
	return data, nil
}
